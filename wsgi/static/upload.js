// The upload page: log in, send one file, show what became of each record. The token stays in this page's memory.
"use strict";

const SHOWN_MAX = 2000; // rows; a tablet grows slow beyond that
const SIGNS = { accepted: "✓ accepted", duplicate: "= stored already", rejected: "✗ refused" };
const maxBytes = Number(document.body.dataset.maxBodyBytes);
const byId = (id) => document.getElementById(id);
let token = "";
let items = [];

function show(id, visible = true) {
  byId(id).hidden = !visible;
}

function tell(id, text) {
  byId(id).textContent = text;
  show(id, Boolean(text));
}

function size(bytes) {
  return bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KB` : `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

async function logIn(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  tell("login-message", "");
  button.disabled = true;
  try {
    const answer = await fetch("/login/", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ username: byId("username").value, password: byId("password").value }),
    });
    const body = await answer.json();
    if (!answer.ok) {
      tell("login-message", body.details);
      byId("password").select();
      return;
    }
    token = body.token;
    byId("who-name").textContent = byId("username").value;
    byId("password").value = "";
    show("login", false);
    show("who");
    show("upload");
    byId("file").focus();
  } catch {
    tell("login-message", "The server cannot be reached. Check the network and try again.");
  } finally {
    button.disabled = false;
  }
}

function logOut() {
  if (token) {
    fetch("/logout/", { method: "POST", headers: { Authorization: `Bearer ${token}` }, keepalive: true });
  }
  token = "";
  items = [];
  for (const id of ["who", "upload", "outcome"]) show(id, false);
  show("login");
  byId("username").focus();
}

function send(file) {
  tell("upload-message", "");
  show("outcome", false);
  if (file.size > maxBytes) {
    tell("upload-message", `${file.name} has ${size(file.size)}; at most ${size(maxBytes)} can be sent. Use myhealth import-machine for it.`);
    return;
  }
  const request = new XMLHttpRequest();
  request.open("POST", "/checkups/?refused_file=true");
  request.setRequestHeader("Authorization", `Bearer ${token}`);
  // The same file, sent again after a broken connection, is stored once.
  request.setRequestHeader("Idempotency-Key", crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`);
  request.upload.addEventListener("progress", (event) => {
    const part = event.total ? Math.round((100 * event.loaded) / event.total) : 0;
    byId("progress").value = part;
    byId("progress-text").textContent = part < 100 ? `Sending ${file.name}: ${part} %` : `Storing ${file.name} …`;
  });
  request.addEventListener("loadend", () => {
    show("progress-box", false);
    byId("file").disabled = false;
    byId("file").value = "";
    receive(request, file);
  });
  byId("progress").value = 0;
  byId("progress-text").textContent = `Sending ${file.name}`;
  byId("file").disabled = true;
  show("progress-box");
  request.send(file);
}

function receive(request, file) {
  let body = null;
  try {
    body = JSON.parse(request.responseText);
  } catch {
    body = null;
  }
  if (body === null) {
    tell("upload-message", "The server did not answer. Nothing is lost: send the file again; what is stored already is not stored twice.");
  } else if (request.status === 401) {
    logOut();
    tell("login-message", body.details);
  } else if (!("items" in body)) {
    tell("upload-message", body.details);
  } else {
    showOutcome(body, file);
  }
}

function showOutcome(body, file) {
  items = body.items;
  for (const status of ["accepted", "duplicate", "rejected"]) {
    byId(`count-${status}`).textContent = body[status].toLocaleString();
  }
  byId("outcome-title").textContent = file.name;
  const kinds = Object.entries(body.skipped || {}).map(([kind, count]) => `${count} ${kind}`);
  tell("skipped", kinds.length ? `Not results, passed over: ${kinds.join(", ")}.` : "");
  const download = byId("download");
  if (download.href) URL.revokeObjectURL(download.href);
  show("download", Boolean(body.refused_file));
  if (body.refused_file) {
    download.href = URL.createObjectURL(new Blob([body.refused_file], { type: "application/octet-stream" }));
    download.download = `refused-${file.name.replace(/\.gz$/, "")}`;
  }
  document.querySelector(`input[name=show][value=${body.rejected ? "rejected" : "all"}]`).checked = true;
  showItems();
  show("outcome");
  byId("outcome-title").focus();
}

function showItems() {
  const only = document.querySelector("input[name=show]:checked").value;
  const wanted = items.filter((item) => only === "all" || item.status === only);
  byId("items").replaceChildren(...wanted.slice(0, SHOWN_MAX).map(row));
  tell("more", wanted.length > SHOWN_MAX ? `… and ${(wanted.length - SHOWN_MAX).toLocaleString()} more.` : "");
}

function row(item) {
  const line = document.createElement("tr");
  line.className = item.status;
  const why = [...item.errors, ...(item.warnings || [])].map((error) => (error.field ? `${error.field}: ${error.message}` : error.message));
  for (const text of [item.index + 1, SIGNS[item.status], item.id ?? ""]) {
    line.insertCell().textContent = text;
  }
  const cell = line.insertCell();
  if (why.length === 1) {
    cell.textContent = why[0];
  } else if (why.length) {
    const list = document.createElement("ul");
    list.append(...why.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    cell.append(list);
  }
  return line;
}

function setUpDrop() {
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length && !byId("file").disabled) send(event.dataTransfer.files[0]);
  });
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) send(event.target.files[0]);
  });
}

byId("max-size").textContent = size(maxBytes);
byId("login").addEventListener("submit", logIn);
byId("logout").addEventListener("click", logOut);
for (const choice of document.querySelectorAll("input[name=show]")) choice.addEventListener("change", showItems);
setUpDrop();
