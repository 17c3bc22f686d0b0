// What an operator may do here, each after a question: drain the gateway, end one stream.

const at = (id) => document.getElementById(id);
const NOTICE_FOR = 8000; // ms

let fading;

export function listen() {
  at("drain").addEventListener("click", drain);
  at("streams").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-id]");
    if (button) kill({ ...button.dataset }); // a copy: next second the row may be another stream's
  });
}

async function drain() {
  const sure = await confirmed(
    "Drain this gateway?",
    "It refuses newcomers, lets running streams end, and then exits. This cannot be taken back.",
    "Drain",
  );
  if (sure) notice(await ask("POST", "/drain", "Draining."));
}

async function kill({ id, model }) {
  const sure = await confirmed(
    "Kill this stream?",
    `${model}, request ${id}. Its client gets an error event with the code killed.`,
    "Kill",
  );
  if (sure) notice(await ask("DELETE", `/streams/${encodeURIComponent(id)}`, `Killed ${id}.`));
}

function confirmed(question, consequence, word) {
  const dialog = at("confirm");
  at("question").textContent = question;
  at("consequence").textContent = consequence;
  at("yes").textContent = word;
  dialog.returnValue = "no"; // Escape keeps what was there
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

const ANSWERS = { 404: "That stream has ended already.", 409: "That stream is queued, or ending already." };

async function ask(method, path, done) {
  try {
    const answer = await fetch(path, { method });
    return answer.ok ? done : ANSWERS[answer.status] ?? `Refused: status ${answer.status}.`;
  } catch {
    return "The gateway could not be reached.";
  }
}

function notice(words) {
  clearTimeout(fading);
  at("notice").textContent = words;
  at("notice").hidden = false;
  fading = setTimeout(() => (at("notice").hidden = true), NOTICE_FOR);
}
