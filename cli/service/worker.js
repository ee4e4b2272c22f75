"use strict";
// Everything comes from GET /stats as text. Rates are the difference of two looks; what stands on the
// page is replaced at each of them, so that nothing grows with the time that it is open.

const LOOK_MS = 1000, LATE_MS = 10000;
let before = null;

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function figure(value) {
  return value === null || value === undefined ? "" : Number(value.toPrecision(3)).toLocaleString("en");
}

function unit(value, name) {
  return value === null || value === undefined ? "" : `${figure(value)} ${name}`;
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

function row(cells, className) {
  const made = element("tr", undefined, className);
  made.append(...cells.map((text) => element("td", text)));
  return made;
}

function pairs(list, entries) {
  list.replaceChildren(...entries.map(([name, text]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", text));
    return pair;
  }));
}

function words(counts) {
  return Object.entries(counts).map(([name, count]) => `${count} ${name.replaceAll("_", " ")}`).join(", ");
}

// Answers a second since the last look; null for what was not there, or began anew.
function rate(now, then, seconds) {
  return then === undefined || now < then || seconds <= 0 ? null : (now - then) / seconds;
}

function showModel(model, old, seconds) {
  const card = byId("model").content.cloneNode(true).firstElementChild;
  card.querySelector("h2").textContent = model.name;
  const answers = words(model.answers) || "no answers yet";
  card.querySelector(".now").textContent =
    `${model.digest.slice(0, 12)}; ${model.streams} ${model.streams === 1 ? "stream" : "streams"}; ${answers}`;
  card.querySelector("tbody").append(...model.boundaries.map((cut, place) => {
    const then = old === undefined ? undefined : old.boundaries[place].answered;
    return row([
      String(cut.id), cut.after, figure(rate(cut.answered, then, seconds)), String(cut.answered),
      figure(cut.mean_batch), unit(cut.wait_ms, "ms"), unit(cut.mean_decode_ms, "ms"),
      unit(cut.mean_compute_ms, "ms"), unit(cut.mb_received, "MB"),
    ], cut.answered ? "" : "idle");
  }));
  return card;
}

function answered(stats) {
  return stats.models.flatMap((model) => model.boundaries).reduce((sum, cut) => sum + cut.answered, 0);
}

function showStats(stats) {
  const seconds = before === null ? 0 : stats.seconds - before.seconds;
  const old = new Map((before === null ? [] : before.models).map((model) => [model.digest, model]));
  show("serving", stats.draining ? "Draining" : stats.serving ? "Serving" : "Not serving");
  show("device", `on ${stats.device}`);
  show("fps", figure(before === null ? null : rate(answered(stats), answered(before), seconds)));
  show("busy", `${figure(100 * stats.utilisation)} %`);
  show("queue", `${stats.queued_frames} frames, ${figure(stats.queued_mb)} MB`);
  show("slowdown", `${figure(stats.slowdown)} times`);
  show("open", String(stats.streams_open));
  show("running", duration(stats.seconds));
  pairs(byId("gpus"), stats.gpus.map((gpu, number) => [`GPU ${number}`,
    (gpu.utilisation === null ? "" : `${figure(100 * gpu.utilisation)} %, `)
    + `${gpu.memory_used_mb} of ${gpu.memory_mb} MB`]));
  byId("models").replaceChildren(
    ...stats.models.map((model) => showModel(model, old.get(model.digest), seconds)));
  byId("streams").tBodies[0].replaceChildren(...stats.streams.map((stream) => row([
    stream.client, stream.model, String(stream.frames),
    Object.entries(stream.cuts).map(([cut, count]) => `${cut}: ${count}`).join(", "),
  ])));
  const rest = stats.streams_open - stats.streams.length;
  show("more", rest > 0 ? `and ${rest} more` : "");
  const refused = { ...stats.refusals, quarantined_frames: stats.quarantined_frames,
    engine_restarts: stats.engine_restarts, engine_errors: stats.engine_errors,
    ingest_restarts: stats.ingest_restarts };
  for (const [stage, count] of Object.entries(stats.unexpected_errors)) {
    refused[`unexpected errors in ${stage}`] = count;
  }
  const some = Object.entries(refused).filter(([, count]) => count);
  byId("refusals").replaceChildren(...(some.length ? some : [["nothing", ""]]).flatMap(
    ([name, count]) => [element("dt", name.replaceAll("_", " ")), element("dd", String(count))]));
  before = stats;
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

async function follow() {
  for (;;) {
    if (!document.hidden) {
      try {
        showStats(await (await ask("/stats")).json());
        showState("live", false);
      } catch (error) {
        showState(`no answer from the worker (${error.message}); asking again`, true);
      }
    }
    await pause(LOOK_MS);
  }
}

follow();
