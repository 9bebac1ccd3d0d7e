"use strict";
// Nothing on the pages needs this file. It tells the server the reader's time zone, in which every page has its dates
// from the next one on, and shows nothing out of a browser's memory after logging out.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const secure = location.protocol === "https:" ? "; secure" : "";
if (/^[\w+\/-]+$/.test(zone)) document.cookie = `myhealth_zone=${zone}; path=/my; max-age=2592000; samesite=strict${secure}`;
