/** Numbers as people read them. */
const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** Decimal units, as disks and downloads are told. */
export function bytes(count: number): string {
  const step = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  const value = count / 1000 ** step;
  return `${value >= 100 || step === 0 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[step]}`;
}

export function count(value: number): string {
  if (value < 10_000) return value.toLocaleString("en-US");
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)} k`;
  return value < 1e9 ? `${(value / 1e6).toFixed(0)} M` : `${(value / 1e9).toFixed(1)} B`;
}

/** At most four significant digits, and no more than are there. */
export const short = (value: number): string => String(Number(value.toPrecision(4)));

export const signed = (value: number): string => (value > 0 ? `+${short(value)}` : short(value));

export const percent = (share: number): string => `${short(100 * share)} %`;

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const clock = (secondsSince1970: number): string => new Date(1000 * secondsSince1970).toLocaleTimeString();
