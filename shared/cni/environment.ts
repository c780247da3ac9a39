// The CNI_* environment variables: which command needs which, and what is wrong with them.
// Called by the dispatcher, before stdin is read.
export type Command = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC';
