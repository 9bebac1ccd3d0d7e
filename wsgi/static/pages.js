"use strict";
// The pages work without this file. It sends the reader's time zone to the server, which uses it from the next page on,
// and reloads a page from the browser's memory, so that nothing is visible after the logout.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const secure = location.protocol === "https:" ? "; secure" : "";
if (/^[\w+\/-]+$/.test(zone)) document.cookie = `myhealth_zone=${zone}; path=/my; max-age=2592000; samesite=strict${secure}`;

// The QR code of an invitation carries what to fill in behind a #, which no server gets to see.
const welcome = document.querySelector("form[action='/my/welcome']");
if (welcome && location.hash) {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of ["username", "code"]) if (given.has(name)) welcome.elements[name].value = given.get(name);
  history.replaceState(null, "", location.pathname);
}
