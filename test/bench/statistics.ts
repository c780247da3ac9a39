// The few figures the benchmark prints of its samples. Called by report.ts and limits.ts, and pure.

export interface Summary {
  readonly min: number;
  readonly median: number;
  readonly p95: number;
  readonly p99: number;
}

/** A ratio of medians and the interval that holds it in 95 of 100 redrawn series. */
export interface Ratio {
  readonly value: number;
  /** The ratio of the best times: what a quiet machine would show. */
  readonly ofMinima: number;
  readonly low: number;
  readonly high: number;
}

const REDRAWN = 1000;

/** Of a series that isn't empty. */
export function summarise(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  return {
    min: sorted[0] ?? Number.NaN,
    median: quantile(sorted, 0.5),
    p95: quantile(sorted, 0.95),
    p99: quantile(sorted, 0.99),
  };
}

/**
 * The median of `upper` over the median of `lower`, two series taken in pairs: what slows the machine for a moment
 * meets both. The interval comes from drawing the pairs again with replacement, always in the same order.
 */
export function ratioOfMedians(upper: readonly number[], lower: readonly number[]): Ratio {
  const pairs = Math.min(upper.length, lower.length);
  const random = generator(pairs);
  const ratios = Array.from({ length: REDRAWN }, () => {
    const drawn = Array.from({ length: pairs }, () => Math.floor(random() * pairs));
    return medianAt(upper, drawn) / medianAt(lower, drawn);
  }).toSorted((a, b) => a - b);
  return {
    value: summarise(upper).median / summarise(lower).median,
    ofMinima: Math.min(...upper) / Math.min(...lower),
    low: quantile(ratios, 0.025),
    high: quantile(ratios, 0.975),
  };
}

function medianAt(samples: readonly number[], indexes: readonly number[]): number {
  const drawn = indexes.map((index) => samples[index] ?? Number.NaN).toSorted((a, b) => a - b);
  return quantile(drawn, 0.5);
}

// Between two neighbours by their distance.
function quantile(sorted: readonly number[], fraction: number): number {
  const position = (sorted.length - 1) * fraction;
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

// xorshift32: the report of the same samples reads the same each time.
function generator(seed: number): () => number {
  let state = seed + 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
