"use strict";
// Nothing on the pages needs this file. It shows times in the reader's own zone, and shows nothing out of a browser's
// memory after logging out.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const said = document.querySelector("[data-zone]");
if (zone && said && said.textContent.replace(/ /g, "_") !== zone) {
  const day = { timeZone: zone, day: "numeric", month: "long", year: "numeric" };
  const clock = { timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  for (const element of document.querySelectorAll("time[data-form=moment]")) {
    const moment = new Date(element.dateTime);
    if (isNaN(moment)) continue;
    element.textContent = new Intl.DateTimeFormat("en-GB", day).format(moment) + ", " + new Intl.DateTimeFormat("en-GB", clock).format(moment);
  }
  said.textContent = zone.replace(/_/g, " ");
}
