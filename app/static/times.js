// Shows times in the zone of the reader, who may choose UTC. Without this script they are UTC.
const utcTime = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/;
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

if (document.documentElement.dataset.times === "local" && zone !== "UTC") {
  const options = { dateStyle: "short", timeStyle: "medium" }; // in Swedish: 2026-11-28 09:30:00
  const day = new Intl.DateTimeFormat("sv", options);
  const name = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" });
  const inZone = (when) => {
    const part = name.formatToParts(when).find((one) => one.type === "timeZoneName");
    return `${day.format(when)} ${part.value}`;
  };
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = inZone(new Date(time.dateTime));
    time.title = time.title.replace(utcTime, text);
    const walker = document.createTreeWalker(time, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replace(utcTime, text);
  }
  const line = document.getElementById("zone");
  line.textContent = line.dataset.zone.replace("{zone}", zone);
}
