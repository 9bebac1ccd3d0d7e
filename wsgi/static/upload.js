// The upload page: log in, send files one after the other, show the outcome of each record.
// The token is only in this page's memory and ends with the page.
"use strict";

const ROWS = 200; // shown first, and added with each press; thousands of rows make a tablet slow
const ANNOUNCED_PART = 25; // percent between two announcements to a screen reader
const STATUSES = ["accepted", "duplicate", "rejected"];
const SIGNS = { accepted: "✓ accepted", duplicate: "= duplicate", rejected: "✗ rejected" };
const EFFECTS = { replaced: "✓ replaced an earlier version", withdrawn: "✓ withdrawn: not shown any more" };
const UPLOADERS = ["doctor", "technician"];
const AWAY = "The server cannot be reached. Check the network";
const byId = (id) => document.getElementById(id);
const maxBytes = Number(byId("upload").dataset.maxBodyBytes);
const WORDS = JSON.parse(byId("upload").dataset.words); // [an option of a command, what this page says instead]
const session = { token: "", name: "" };
let jobs = []; // the files chosen since the login, in order: {file, key, box, state, items, …}
let request = null; // the current request

function tell(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function announce(text) {
  byId("announce").textContent = text;
}

function sizeOf(bytes) {
  return bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KB` : `${Math.round((bytes / 1024 / 1024) * 10) / 10} MB`;
}

function counted(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// --- logging in and out

/** Return the response's JSON object. Throws an Error with a message for people if there is no JSON object. */
async function ask(path, options) {
  let answer;
  try {
    // Without "omit" the browser opens its own dialog for the Basic challenge of a 401.
    answer = await fetch(path, { ...options, credentials: "omit" });
  } catch {
    throw new Error(`${AWAY} and try again.`);
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok || !body) throw new Error(body?.details ?? `The server cannot answer right now (${answer.status}). Try again.`);
  return body;
}

async function logIn(event) {
  event.preventDefault();
  const [username, password] = [byId("username"), byId("password")];
  const empty = [username, password].find((field) => !field.value);
  if (empty) {
    tell(byId("login-message"), `Type your ${empty.id}.`);
    empty.focus();
    return;
  }
  const button = event.target.querySelector("button");
  tell(byId("login-message"), "");
  button.disabled = true;
  try {
    const credentials = JSON.stringify({ username: username.value, password: password.value });
    const headers = { "Content-Type": "application/json" };
    const { token } = await ask("/login/", { method: "POST", headers, body: credentials });
    const self = `/users/${encodeURIComponent(username.value)}/`;
    const user = await ask(self, { headers: { Authorization: `Bearer ${token}` } });
    if (!UPLOADERS.includes(user.role)) {
      throw new Error(`Uploads are for doctors and technicians; the account ${user.username} has the role ${user.role}.`);
    }
    begin(token, user.username);
  } catch (error) {
    tell(byId("login-message"), error.message);
    password.value = "";
    password.focus();
  } finally {
    button.disabled = false;
  }
}

function begin(token, name) {
  if (session.name !== name) forget(); // a user never sees the uploads of another user
  Object.assign(session, { token, name });
  byId("who-name").textContent = name;
  byId("password").value = "";
  showSession(true);
  byId("file").focus();
  sendNext();
}

function showSession(open) {
  byId("login").hidden = open;
  for (const id of ["who", "upload"]) byId(id).hidden = !open;
  byId("outcomes").hidden = !open || !jobs.length;
}

function forget() {
  for (const job of jobs) URL.revokeObjectURL(job.link);
  jobs = [];
  byId("outcomes").replaceChildren();
  session.name = "";
  announce("");
}

function logOut() {
  const headers = { Authorization: `Bearer ${session.token}` };
  fetch("/logout/", { method: "POST", headers, keepalive: true }).catch(() => {}); // unavailable: the token expires
  session.token = "";
  const cancelled = request;
  request = null;
  forget();
  cancelled?.abort();
  byId("username").value = "";
  showSession(false);
  byId("username").focus();
}

/** The token is not taken any more: after a login of the same person the waiting files go on. */
function sessionEnded() {
  session.token = "";
  showSession(false);
  byId("username").value = session.name;
  tell(byId("login-message"), "Your login has ended. Log in again: what you have chosen is sent then.");
  byId("password").focus();
}

// --- sending

function choose(files) {
  for (const file of files) addJob(file);
  byId("outcomes").hidden = !jobs.length;
  sendNext();
}

function addJob(file) {
  const box = byId("outcome").content.cloneNode(true).firstElementChild;
  // Each retry sends the same key, so that a file sent again after a broken connection is stored once.
  const job = { file, box, key: newKey(), state: "waiting", items: [], shown: ROWS, link: "" };
  const [heading, number] = [box.querySelector("h2"), jobs.length];
  heading.textContent = file.name;
  heading.id = `file-${number}`;
  box.setAttribute("aria-labelledby", heading.id);
  box.querySelector("progress").setAttribute("aria-label", `Sending ${file.name}`);
  box.querySelector(".scroll").setAttribute("aria-label", `Outcome of every record of ${file.name}`);
  for (const choice of box.querySelectorAll("input[type=radio]")) {
    choice.name = `show-${number}`;
    choice.addEventListener("change", () => showItems(job, ROWS));
  }
  box.querySelector(".more").addEventListener("click", () => showMore(job));
  box.querySelector(".again").addEventListener("click", () => sendAgain(job));
  box.querySelector(".state").textContent = "Waiting";
  jobs.push(job);
  byId("outcomes").prepend(box);
  if (file.size > maxBytes) {
    fail(job, `The file has ${sizeOf(file.size)}; at most ${sizeOf(maxBytes)} can be sent. An administrator can import it.`);
  }
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

function sendAgain(job) {
  job.state = "waiting";
  job.box.querySelector(".message").hidden = true;
  job.box.querySelector(".again").hidden = true;
  job.box.querySelector("progress").hidden = false;
  job.box.querySelector("h2").focus();
  sendNext();
}

function sendNext() {
  const job = jobs.find((each) => each.state === "waiting");
  if (!job || request || !session.token) return;
  const { file, box } = job;
  const sent = new XMLHttpRequest();
  request = sent;
  job.state = "sending";
  sent.open("POST", "/checkups/?refused_file=true");
  sent.setRequestHeader("Authorization", `Bearer ${session.token}`);
  sent.setRequestHeader("Idempotency-Key", job.key);
  sent.setRequestHeader("Content-Disposition", `attachment; filename*=UTF-8''${encodeURIComponent(file.name)}`);
  let announced = 0;
  const show = (part) => {
    box.querySelector("progress").value = part;
    box.querySelector(".state").textContent = part < 100 ? `Sending: ${part} %` : "Sent; the server is storing it …";
    if (part === 100) box.querySelector("progress").removeAttribute("value");
    if (part < announced + ANNOUNCED_PART) return;
    announced = part;
    announce(`${file.name}: ${part} % sent`);
  };
  show(0);
  sent.upload.addEventListener("progress", ({ loaded, total }) => show(total ? Math.floor((100 * loaded) / total) : 0));
  sent.addEventListener("loadend", () => {
    if (request !== sent) return; // the user has logged out since
    request = null;
    receive(job, sent);
    sendNext();
  });
  const readable = file.slice(0, 1).arrayBuffer();
  readable.then(() => request === sent && sent.send(file)).catch(() => {
    request = null;
    fail(job, "It cannot be read: it is a folder, or it was changed or moved meanwhile. Choose it again.");
    sendNext();
  });
}

function receive(job, { status, responseText }) {
  let body = null;
  try {
    body = JSON.parse(responseText);
  } catch {
    body = null;
  }
  if (status === 401) {
    job.state = "waiting";
    job.box.querySelector(".state").textContent = "Waiting for your login";
    sessionEnded();
  } else if (status === 0) {
    fail(job, `${AWAY}, then send it again: what is stored already is not stored twice.`, [], true);
  } else if (!body && status === 413) {
    fail(job, "It is too large for a server on the way. Upload it in parts, or ask an administrator to import it.");
  } else if (!body) {
    fail(job, `The server cannot answer right now (${status}). Send it again in a moment; nothing is stored twice.`, [], true);
  } else if (!body.items) {
    fail(job, inPageWords(body.details), body.errors ?? [], status >= 500);
  } else {
    showOutcome(job, body);
  }
}

/** Show why no record of a file was stored, or that this is unknown, and whether sending it again can help. */
function fail(job, text, errors = [], again = false) {
  job.state = "failed";
  const box = job.box.querySelector(".message");
  box.hidden = false;
  box.querySelector("p").textContent = text;
  box.querySelector("ul").replaceChildren(...errors.map((error) => listItem(sentence(error))));
  box.querySelector("ul").hidden = !errors.length;
  job.box.querySelector("progress").hidden = true;
  const state = again ? "No answer yet" : "Not uploaded";
  job.box.querySelector(".state").textContent = state;
  job.box.querySelector(".again").hidden = !again;
  finish(job, `${state}. ${text}`);
}

/** Tells it; the focus follows unless the person is busy with something else. */
function finish(job, text) {
  announce(`${job.file.name}: ${text}`);
  const idle = !document.activeElement || document.activeElement === document.body || document.activeElement === byId("file");
  if (idle && !jobs.some((each) => each.state === "waiting")) job.box.querySelector("h2").focus();
}

// --- showing the outcomes

function showOutcome(job, body) {
  const { box, file } = job;
  Object.assign(job, { state: "done", items: body.items });
  for (const status of STATUSES) {
    const count = box.querySelector(`.counts .${status}`);
    count.querySelector("strong").textContent = body[status].toLocaleString("en");
    count.classList.toggle("none", !body[status]); // a red bar over 0 would alarm
  }
  const total = counted(body.items.length, "record", "records");
  const isWell = body.items.length && !body.notices;
  box.querySelector(".state").textContent = body.rejected ? `${total}, ${body.rejected.toLocaleString("en")} rejected` : isWell ? `${total}, all well` : total;
  box.querySelector("progress").hidden = true;
  const kinds = Object.entries(body.skipped ?? {}).map(([kind, count]) => `${count.toLocaleString("en")} ${kind}`);
  const left = kinds.length ? [`Not results, passed over: ${kinds.join(", ")}.`] : [];
  const done = Object.entries(EFFECTS).map(([effect, words]) => [body.items.filter((item) => item.effect === effect).length, words.slice(2)]);
  const effects = done.filter(([count]) => count).map(([count, words]) => `Of the accepted, ${count.toLocaleString("en")} ${words}.`);
  tell(box.querySelector(".skipped"), [...effects, ...left, ...(body.notices ?? []).map((notice) => `Please note: ${inPageWords(notice)}.`)].join(" "));
  if (body.refused_file) {
    job.link = URL.createObjectURL(new Blob([body.refused_file], { type: "application/octet-stream" }));
    const download = box.querySelector(".download");
    download.href = job.link;
    download.download = `rejected-${file.name.replace(/\.gz$/i, "")}`;
    box.querySelector(".refused").hidden = false;
  }
  box.querySelector(`input[value=${body.rejected ? "rejected" : "all"}]`).checked = true;
  box.querySelector("fieldset").hidden = !body.rejected || body.rejected === body.items.length;
  box.querySelector(".scroll").hidden = !body.items.length;
  box.querySelector(".told").hidden = false;
  showItems(job, ROWS);
  finish(job, STATUSES.map((status) => `${body[status].toLocaleString("en")} ${SIGNS[status].slice(2)}`).join(", "));
}

function wanted(job) {
  const only = job.box.querySelector("input:checked").value;
  return job.items.filter((item) => only === "all" || item.status === only);
}

function showItems(job, most) {
  const items = wanted(job);
  job.shown = Math.min(most, items.length);
  job.box.querySelector("tbody").replaceChildren(...items.slice(0, job.shown).map(tableRow));
  const left = items.length - job.shown;
  tell(job.box.querySelector(".more"), left ? `Show ${Math.min(ROWS, left)} more of ${counted(left, "record", "records")}` : "");
}

function showMore(job) {
  const first = job.shown;
  showItems(job, first + ROWS);
  const row = job.box.querySelector("tbody").rows[first];
  row.tabIndex = -1;
  row.focus(); // reading continues here, also without the button
}

function tableRow(item) {
  const row = document.createElement("tr");
  row.className = item.status;
  const remarks = [...(item.errors ?? []), ...(item.warnings ?? [])].map(sentence);
  for (const text of [item.index + 1, EFFECTS[item.effect] ?? SIGNS[item.status], item.id ?? "–"]) row.insertCell().textContent = text;
  const cell = row.insertCell();
  const place = placeOf(item);
  if (place) cell.append(Object.assign(document.createElement("p"), { className: "small", textContent: place }));
  if (remarks.length === 1) {
    cell.append(remarks[0]);
  } else if (remarks.length) {
    const list = document.createElement("ul");
    list.append(...remarks.map(listItem));
    cell.append(list);
  }
  return row;
}

/** How to find the record in the file: by its line, and by the number that the machine gave it. */
function placeOf({ line, record_id: number }) {
  return [line ? `Line ${line.toLocaleString("en")}` : "", number ? `record_id ${number}` : ""].filter(Boolean).join(", ");
}

function sentence({ field, message }) {
  return inPageWords(field ? `${field}: ${message}` : message);
}

function inPageWords(text) {
  return WORDS.reduce((said, [option, words]) => said.replaceAll(option, words), text);
}

function listItem(text) {
  return Object.assign(document.createElement("li"), { textContent: text });
}

// --- choosing

function setUpDrop() {
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  // Outside the field too, where the browser would leave this page and open the file.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("drop", ({ dataTransfer }) => {
    if (session.token) choose(dataTransfer.files);
  });
  byId("file").addEventListener("change", ({ target }) => {
    choose([...target.files]);
    target.value = ""; // the same file can be chosen again
  });
}

byId("max-size").textContent = sizeOf(maxBytes);
byId("login").addEventListener("submit", logIn);
byId("logout").addEventListener("click", logOut);
window.addEventListener("beforeunload", (event) => {
  if (jobs.some(({ state }) => state === "sending" || state === "waiting")) event.preventDefault();
});
setUpDrop();
