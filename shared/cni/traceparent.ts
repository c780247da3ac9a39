// The trace that a call is part of, as whoever started the runtime's request says it in TRACEPARENT.
// Called by call-log.ts; pure.

/** A place in a trace: identifiers in hexadecimal, as they were given. */
export interface TraceParent {
  /** 32 digits. */
  readonly traceId: string;
  /** 16 digits: the span that this call is a child of. */
  readonly spanId: string;
  /** 2 digits; bit 0: the trace is recorded. */
  readonly flags: string;
}

/**
 * Parses `00-<trace id>-<parent id>-<flags>`, all digits lower case; undefined for what is malformed, which the
 * specification wants ignored. Later versions may say more behind a further dash.
 * Source: W3C Trace Context, section 3.2 "traceparent Header".
 */
export function parseTraceParent(text: string | undefined): TraceParent | undefined {
  const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
  const [, version, traceId, spanId, flags, more] = pattern.exec(text ?? '') ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (version === 'ff' || (version === '00' && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags };
}
