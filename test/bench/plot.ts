// The benchmark's results as pictures, in SVG. Called by bench-report.ts.
import * as echarts from 'echarts';

/** One bar or dot of a plot. */
export interface Bar {
  readonly label: string;
  readonly value: number;
}

/** A group of bars that share a colour and an entry of the legend. */
export interface BarSeries {
  readonly name: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 860;
const BAR = 16;
const FONT = 'sans-serif';
// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS = ['#0072b2', '#e69f00', '#999999', '#009e73', '#cc79a7', '#56b4e9'];

/** Horizontal bars in milliseconds, a group for each label. `series` name the same labels in the same order. */
export function plotTimes(title: string, series: readonly BarSeries[]): string {
  const labels = series[0]?.bars.map(({ label }) => label) ?? [];
  return render(title, 80 + labels.length * (series.length * BAR + 14), {
    legend: { bottom: 4, textStyle: { fontFamily: FONT } },
    xAxis: { type: 'value', name: 'ms, median', nameLocation: 'middle', nameGap: 26 },
    yAxis: { type: 'category', data: labels, inverse: true },
    series: series.map(({ name, bars }) => ({
      name,
      type: 'bar',
      barWidth: BAR - 2,
      data: bars.map(({ value }) => round(value)),
      label: { show: true, position: 'right', fontFamily: FONT, fontSize: 11 },
    })),
  });
}

/** What one of several has at each point, undefined where it was not. */
export interface Line {
  readonly name: string;
  readonly values: readonly (number | undefined)[];
}

/** Lines over a handful of named points, from left to right, on a logarithmic scale. */
export function plotLines(
  title: string,
  {
    points,
    unit,
    lines,
  }: { readonly points: readonly string[]; readonly unit: string; readonly lines: readonly Line[] },
): string {
  return render(title, 360, {
    grid: { left: 24, right: 32, top: 40, bottom: 64, containLabel: true },
    legend: { bottom: 4, textStyle: { fontFamily: FONT } },
    xAxis: { type: 'category', data: [...points], boundaryGap: false },
    yAxis: { type: 'log', name: unit, nameLocation: 'middle', nameGap: 44 },
    series: lines.map(({ name, values }, index) => ({
      name,
      type: 'line',
      symbol: SYMBOLS[index % SYMBOLS.length],
      symbolSize: 8,
      lineStyle: { width: index === 0 ? 3 : 1.5 },
      data: values.map((value) => (value === undefined ? '-' : round(value))),
    })),
  });
}

const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond', 'emptyCircle', 'emptyRect'];

/** Ours ÷ theirs on a logarithmic scale, one bar each: what lies left of 1 is faster than the reference, and blue. */
export function plotRatios(title: string, bars: readonly Bar[]): string {
  const data = bars.map(({ value }) => ({
    value: round(value),
    itemStyle: { color: value <= 1 ? COLOURS[0] : COLOURS[1] },
  }));
  return render(title, 90 + bars.length * (BAR + 10), {
    xAxis: { type: 'log', name: 'ours ÷ reference', nameLocation: 'middle', nameGap: 26, min: 0.1, max: 10 },
    yAxis: { type: 'category', data: bars.map(({ label }) => label), inverse: true },
    series: [
      {
        type: 'bar',
        barWidth: BAR - 2,
        data,
        label: { show: true, position: 'right', fontFamily: FONT, fontSize: 11 },
        markLine: {
          symbol: 'none',
          silent: true,
          label: { show: false },
          lineStyle: { color: '#000000', type: 'solid' },
          data: [{ xAxis: 1 }],
        },
      },
    ],
  });
}

function render(title: string, height: number, option: echarts.EChartsCoreOption): string {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      color: COLOURS,
      title: { text: title, left: 'center', textStyle: { fontFamily: FONT, fontSize: 14 } },
      grid: { left: 8, right: 60, top: 36, bottom: 52, containLabel: true },
      ...option,
    });
    return `${chart.renderToSVGString()}\n`;
  } finally {
    chart.dispose();
  }
}

function round(value: number): number {
  return Number(value.toPrecision(3));
}
