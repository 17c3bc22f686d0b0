// The live page: one EventSource, whose `history` fills the charts and whose `snapshot`, each second, all the rest.

import { listen } from "./actions.js";
import { Charts } from "./charts.js";
import { render, state } from "./panels.js";

const AGAIN = 3000; // ms until another connection is made, when the browser has given up making them

const charts = new Charts(document.getElementById("charts"));
let source = null;

function open() {
  if (source !== null) return;
  source = new EventSource("/streams");
  source.addEventListener("history", (event) => charts.reset(JSON.parse(event.data)));
  source.addEventListener("snapshot", (event) => {
    const seen = JSON.parse(event.data);
    render(seen);
    charts.add(seen.sample);
    document.body.classList.remove("stale");
  });
  source.addEventListener("error", lost);
}

function lost() {
  state("not connected", "bad");
  document.body.classList.add("stale"); // what it shows is how it was
  document.getElementById("drain").disabled = true;
  if (source?.readyState === EventSource.CLOSED) {
    close();
    setTimeout(() => document.hidden || open(), AGAIN);
  }
}

function close() {
  source?.close();
  source = null;
}

// A page that nobody sees costs the gateway nothing; when it is seen again, the history fills the gap.
document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
listen();
open();
