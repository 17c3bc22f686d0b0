// Numbers as people read them. What is not there is a dash.

const DASH = "–";

export function seconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value < 1000) return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  return seconds(value / 1000);
}

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  const kib = value / 1024;
  return kib < 1024 ? `${kib.toFixed(kib < 10 ? 1 : 0)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
}

export function number(value) {
  if (value === null || value === undefined) return DASH;
  const digits = Math.abs(value) < 10 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function text(value) {
  return value || DASH;
}

// Of a Unix time, in the viewer's own zone.
export function time(value) {
  return new Date(value * 1000).toLocaleTimeString("en-GB");
}

export function phase(name) {
  return name.replaceAll("_", " ");
}
