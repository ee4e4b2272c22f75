"use strict";
// Everything that is shown comes from GET /stats as text, and pictures from GET /picture. What stands
// on the page is replaced at each look: nothing grows with the time that it is open.

const LOOK_MS = 1000, PICTURE_MS = 250, LATE_MS = 10000;
const STAGES = ["edge", "encode", "uplink", "queue", "cloud", "downlink"];
const OUTCOMES = { answered: "by the worker", local: "on the device", expired: "expired",
  failed: "failed" };
const cards = [];

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function figure(value) {
  return value === null ? "?" : Number(value.toPrecision(3)).toLocaleString("en");
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function uplink(mbps) {
  if (mbps === null) return "not measured";
  return mbps > 0 ? `${figure(mbps)} Mbit/s` : "dead (nothing comes through)";
}

function energy(stats) {
  if (stats.energy_wh === null) return "not known";
  return `${figure(stats.energy_wh)} Wh (${stats.energy_kind})`;
}

function counts(outcomes) {
  const some = Object.entries(outcomes).filter(([, count]) => count);
  return some.map(([name, count]) => `${count} ${OUTCOMES[name] || name}`).join(", ") || "none yet";
}

function ways(source) {
  return source.ways.map((way) => `${Math.round(100 * way.share)} % ${way.way}`).join(", ");
}

function inTime(frames, count) {
  return frames ? `${count} of ${frames} (${figure(100 * count / frames)} %)` : "no frames yet";
}

function cardOf(number) {
  if (!cards[number]) {
    const card = byId("source").content.cloneNode(true).firstElementChild;
    byId("sources").append(card);
    cards[number] = card;
    followPicture(card, number);
  }
  return cards[number];
}

function showStages(card, stages) {
  const shown = STAGES.filter((name) => stages[name] > 0);
  const total = shown.reduce((sum, name) => sum + stages[name], 0);
  const bar = card.querySelector(".bar"), legend = card.querySelector(".legend");
  bar.replaceChildren(...shown.map((name) => {
    const part = element("i", undefined, `s-${name}`);
    part.style.width = `${100 * stages[name] / total}%`;
    return part;
  }));
  legend.replaceChildren(...shown.map((name) => {
    const line = element("li");
    line.append(element("i", undefined, `s-${name}`), `${name} ${figure(stages[name])} ms`);
    return line;
  }));
  bar.setAttribute("aria-label", `Medians: ${legend.textContent || "no answers yet"}`);
}

function showSource(source, number) {
  const card = cardOf(number);
  card.querySelector("h2").textContent = source.name;
  card.querySelector("img").alt = source.answer;
  card.querySelector(".now").textContent = source.answer;
  showStages(card, source.stages_ms);
  const rows = {
    "frames a second": figure(source.fps),
    "ways": ways(source),
    "half within": source.p50_ms === null ? "" : `${figure(source.p50_ms)} ms`,
    "95 % within": source.p95_ms === null ? "" : `${figure(source.p95_ms)} ms`,
    "in time": inTime(source.frames, source.in_time),
    "outcomes": counts(source.outcomes),
    "sent": `${figure(source.mb_up)} MB`,
  };
  const list = card.querySelector("dl");
  list.replaceChildren(...Object.entries(rows).filter(([, text]) => text).flatMap(
    ([name, text]) => [element("dt", name), element("dd", text)]));
}

function showEvents(events) {
  const lines = events.map((event) => {
    const line = element("li"), time = element("time", new Date(event.time).toLocaleTimeString());
    time.dateTime = event.time;
    line.append(time, element("span", event.text));
    return line;
  });
  byId("events").replaceChildren(...(lines.length ? lines : [element("li", "none yet")]));
}

function showStats(stats) {
  document.title = `${stats.model.name}: splitpoint`;
  show("model", stats.model.name);
  show("way", stats.plan.way.charAt(0).toUpperCase() + stats.plan.way.slice(1));
  show("why", `${stats.plan.why}; in ${stats.plan.runtime}, cut after ${stats.plan.after}`);
  show("uplink", uplink(stats.uplink_mbps));
  show("in-time", inTime(stats.frames, stats.in_time));
  show("sent", `${figure(stats.mb_up)} MB`);
  show("energy", energy(stats));
  show("running", duration(stats.seconds));
  stats.sources.forEach(showSource);
  showEvents(stats.events);
}

function showState(text, isLost) {
  show("state", text);
  byId("state").classList.toggle("lost", isLost);
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(LATE_MS), cache: "no-store" });
  if (answer.status === 401) location.reload(); // to the form that asks for the token
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer;
}

async function followPicture(card, number) {
  const image = card.querySelector("img");
  let after = "", shown = "";
  image.hidden = true;
  for (;;) {
    await pause(document.hidden ? LOOK_MS : PICTURE_MS);
    if (document.hidden) continue;
    try {
      const answer = await ask(`/picture?source=${number}&after=${after}`);
      if (answer.status === 204) continue;
      after = answer.headers.get("X-Frame-Id");
      const next = URL.createObjectURL(await answer.blob());
      image.src = next;
      if (shown) URL.revokeObjectURL(shown);
      shown = next;
      image.hidden = false;
      card.querySelector(".empty").hidden = true;
    } catch (error) {
      await pause(LOOK_MS); // the line at the top says what is wrong
    }
  }
}

async function follow() {
  for (;;) {
    if (!document.hidden) {
      try {
        showStats(await (await ask("/stats")).json());
        showState("live", false);
      } catch (error) {
        showState(`no answer from the device (${error.message}); asking again`, true);
      }
    }
    await pause(LOOK_MS);
  }
}

follow();
