// Drives ocicni, the library through which CRI-O calls CNI plugins, with the calls that CRI-O makes: CRI-O itself is
// in no Debian release and takes a C tool chain to build.
//
// Usage: ocicni start|run|stop CONF_DIR BIN_DIR CACHE_DIR, with the pods on standard input, a list of PodNetwork.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/cri-o/ocicni/pkg/ocicni"
)

func main() {
	if err := call(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(verb, confDir, binDir, cacheDir string) error {
	var pods []*ocicni.PodNetwork
	if err := json.NewDecoder(os.Stdin).Decode(&pods); err != nil {
		return err
	}
	plugin, err := ocicni.InitCNIWithCache("", confDir, cacheDir, binDir)
	if err != nil {
		return err
	}
	defer plugin.Shutdown()

	// The server, when it starts: is the network ready, and what is left of pods that are no more?
	if verb == "start" {
		if err := plugin.Status(); err != nil {
			return err
		}
		return plugin.GC(context.Background(), pods)
	}
	for _, pod := range pods {
		if err := one(plugin, verb, *pod); err != nil {
			return err
		}
	}
	return nil
}

func one(plugin ocicni.CNIPlugin, verb string, pod ocicni.PodNetwork) error {
	if verb == "stop" {
		return plugin.TearDownPod(pod)
	}
	if _, err := plugin.SetUpPod(pod); err != nil {
		return err
	}
	// CRI-O asks for the pod's addresses at once, which is a CHECK.
	results, err := plugin.GetPodNetworkStatus(pod)
	if err != nil {
		return err
	}
	for _, result := range results {
		fmt.Println(result.Result)
	}
	return nil
}
