// Everything but the charts: the state in the header, the numbers, and the three tables.

import * as show from "./format.js";
import { fill } from "./tables.js";

const at = (id) => document.getElementById(id);

const PHASE_TONES = { streaming: "good", waiting_first_token: "wait", queued: "wait" };
const HEALTH_TONES = { ok: "good", failing: "wait", ejected: "bad" };
const CIRCUIT_TONES = { closed: "good", half_open: "wait", open: "bad" };

export function render(seen) {
  header(seen);
  numbers(seen);
  fill(at("upstreams"), seen.upstreams.map(upstreamCells));
  limits(seen);
  streams(seen);
  fill(at("endings"), seen.endings.map(endingCells));
  at("peaceful").hidden = seen.endings.length > 0;
}

export function state(text, tone) {
  at("state").textContent = text;
  at("state").className = `pill ${tone}`;
}

function header(seen) {
  const serving = seen.phase === "serving";
  state(serving ? (seen.ready ? "ready" : "starting") : seen.phase, serving && seen.ready ? "good" : "wait");
  at("about").textContent = `${seen.version} · up ${show.seconds(seen.uptime_s)}`;
  at("drain").disabled = !serving;
}

function numbers(seen) {
  const of = (limit) => (limit ? ` / ${show.number(limit)}` : "");
  const [, , starts, p50, p95, chunks, errors] = seen.sample ?? [];
  const values = [
    ["active", `${show.number(seen.active)}${of(seen.limit)}`, ""],
    ["waiting", show.number(seen.phases.waiting_first_token), ""],
    ["stalled", show.number(seen.stalled), seen.stalled ? "bad" : ""],
    ["queued", `${show.number(seen.queued)}${of(seen.queue_limit)}`, seen.queued ? "wait" : ""],
    ["starts/s", show.number(starts), ""],
    ["chunks/s", show.number(chunks), ""],
    ["first token p50", show.milliseconds(p50), ""],
    ["first token p95", show.milliseconds(p95), ""],
    ["errors/s", show.number(errors), errors ? "bad" : ""],
  ];
  values.forEach(([name, value, tone], index) => {
    const tile = at("numbers").children[index] ?? newTile(name);
    tile.lastChild.textContent = value;
    tile.className = tone;
  });
}

function newTile(name) {
  const tile = at("numbers").appendChild(document.createElement("div"));
  tile.append(document.createElement("span"), document.createElement("strong"));
  tile.firstChild.textContent = name;
  return tile;
}

function upstreamCells(up) {
  const out = up.ejected_s ? ` for ${show.seconds(up.ejected_s)}` : "";
  return [
    up.name,
    { text: `${up.health}${out}`, tone: HEALTH_TONES[up.health] },
    { text: show.phase(up.circuit), tone: CIRCUIT_TONES[up.circuit] },
    show.number(up.failures), show.number(up.tries), show.number(up.active), show.number(up.pooled),
  ];
}

const TROUBLES = {
  lag: "newcomers are refused: the event loop is late",
  memory: "newcomers are refused: memory",
  store: "the store of shared limits does not answer",
};

function limits(seen) {
  fill(at("slots"), seen.slots.map(slotCells));
  at("unlimited").hidden = seen.slots.length > 0;
  const waiting = Object.entries(seen.waiting).filter(([, count]) => count > 0);
  const classes = waiting.map(([name, count]) => `${show.number(count)} ${name}`).join(", ");
  at("queue").textContent = classes ? `waiting: ${classes}, the longest for ${show.seconds(seen.longest_wait_s)}` : "";
  at("troubles").textContent = seen.troubles.map((each) => TROUBLES[each] ?? each).join("; ");
}

function slotCells(slot) {
  const full = slot.used / slot.limit;
  return [
    slot.level,
    { text: slot.name, title: slot.name },
    show.number(slot.used), show.number(slot.limit),
    { text: `${Math.floor(full * 100)} %`, tone: full >= 1 ? "bad" : full >= 0.85 ? "wait" : "" },
  ];
}

function streams(seen) {
  fill(at("streams"), seen.streams.map(streamCells));
  [...at("streams").tBodies[0].rows].forEach((row, index) => killable(row, seen.streams[index]));
  const { length } = seen.streams;
  at("shown").textContent = length < seen.total ? `${length} of ${show.number(seen.total)}, quietest first` : "";
  at("idle").hidden = length > 0;
}

function streamCells(stream) {
  const word = stream.stalled ? "stalled" : stream.blocked_s !== null ? "client is slow" : show.phase(stream.phase);
  const tone = stream.stalled ? "bad" : stream.blocked_s !== null ? "wait" : PHASE_TONES[stream.phase];
  const again = stream.attempts > 1 ? ` (try ${stream.attempts})` : "";
  return [
    { text: word, tone },
    { text: show.text(stream.model), title: stream.model },
    show.text(stream.upstream) + again,
    show.seconds(stream.age_s),
    show.milliseconds(stream.ttft_ms),
    show.number(stream.chunks_per_s),
    show.number(stream.chunks),
    { text: show.seconds(stream.quiet_s), tone: stream.stalled ? "bad" : "" },
    { text: show.bytes(stream.buffered), tone: stream.buffered > 65536 ? "wait" : "" },
    { text: show.text(stream.id), title: stream.id },
  ];
}

// The last cell of a row is its button; `actions.js` listens for clicks on the table.
function killable(row, stream) {
  const cell = row.cells[row.cells.length - 1];
  const button = cell.firstChild ?? cell.appendChild(document.createElement("button"));
  button.textContent ||= "Kill…";
  button.dataset.id = stream.id;
  button.dataset.model = stream.model;
  button.disabled = stream.phase !== "streaming" && stream.phase !== "waiting_first_token";
}

function endingCells(ending) {
  const tone = ending.outcome === "killed" ? "wait" : "bad";
  return [
    show.time(ending.at),
    { text: show.phase(ending.outcome), tone },
    show.text(ending.reason),
    { text: show.text(ending.model), title: ending.model },
    show.text(ending.upstream),
    show.seconds(ending.age_s),
    show.number(ending.chunks),
    { text: show.text(ending.id), title: ending.id },
  ];
}
