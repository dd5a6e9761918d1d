// The page: keeps the jobs that the server tells about, and shows the clip that the address names.

import { Player } from "./player.js";
import { amount, byId, make, profileOrder, showCosts, showProfile, showReports } from "./pages.js";

const jobs = new Map();
let shownClip = null; // id of the clip on the bench
let marks = []; // what was pointed at in it
let wish = null; // the profile that this page has asked for
let uploading = null;
let followedFrames = 0;

const SAID = {
  waiting: "Waits for its turn", render: "Rendering the sample", read: "Reading the clip", follow: "Following",
  erase: "Erasing", show: "Getting it ready to show", count: "Counting",
};

// ---- the server -------------------------------------------------------------------------------------------------

async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is `tenfold serve` still running?");
  }
  if (!answer.ok) throw new Error(await reason(answer));
  return answer.status === 204 ? null : answer.json();
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).detail;
  } catch {
    return text.slice(0, 300);
  }
}

function complain(error) {
  const notice = byId("notice");
  notice.textContent = error ? error.message : "";
  notice.hidden = !error;
}

const attempt = (action) => async (...given) => {
  complain(null);
  try {
    await action(...given);
  } catch (error) {
    complain(error);
  }
};

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("all", (event) => {
    complain(null);
    jobs.clear();
    for (const job of JSON.parse(event.data).jobs) jobs.set(job.id, job);
    route();
  });
  events.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    const before = jobs.get(job.id);
    jobs.set(job.id, job);
    if (!before || before.state !== job.state) announce(job);
    refresh();
  });
  events.addEventListener("gone", (event) => {
    jobs.delete(JSON.parse(event.data).id);
    refresh();
  });
  events.addEventListener("error", () => {
    // The browser tries again by itself, unless it was turned away.
    if (events.readyState === EventSource.CLOSED) {
      complain(new Error("The server was started anew, or asks you to come in again: open the address that it printed."));
    } else {
      complain(new Error("The server does not answer at the moment; waiting for it."));
    }
  });
}

function announce(job) {
  const words = { done: "finished", failed: "failed", cancelled: "cancelled" }[job.state];
  const kinds = { clip: "Reading the clip", follow: "Following", erase: "Erasing", profile: "Counting" };
  if (words) byId("status").textContent = `${kinds[job.kind]}: ${words}. ${job.error}`;
}

const all = () => [...jobs.values()].sort((one, other) => other.created - one.created);
const latest = (kind, parents) => all().find((job) => job.kind === kind && parents.includes(job.parent));
const isOver = (job) => !["waiting", "running"].includes(job.state);

// ---- a job's line -----------------------------------------------------------------------------------------------

const begun = new Map(); // for the time left: when a stage was first seen, and how far it was

function timeLeft(job) {
  if (!job.stage || !job.stage[2]) return "";
  const [stage, done, total] = job.stage;
  const key = `${job.id} ${stage}`;
  const now = performance.now() / 1000;
  if (!begun.has(key)) begun.set(key, [now, done]);
  const [since, first] = begun.get(key);
  if (done - first < 3 || now - since < 2) return "";
  const seconds = ((now - since) / (done - first)) * (total - done);
  return seconds > 90 ? `, ${Math.round(seconds / 60)} min left` : `, ${Math.max(1, Math.round(seconds))} s left`;
}

function showJob(place, job) {
  const kept = place.dataset.shape;
  const shape = job ? `${job.id} ${job.state}` : "";
  if (kept !== shape) {
    place.dataset.shape = shape;
    place.replaceChildren();
    if (!job || job.state === "done") return;
    const act = (verb) => attempt(() => ask("POST", `/api/jobs/${job.id}/${verb}`));
    const words = make("span", { class: job.state === "failed" ? "bad" : "quiet" });
    if (isOver(job)) {
      words.textContent = job.state === "failed" ? `It failed: ${job.error}` : "Cancelled.";
      place.append(make("div", { class: "line" }, words, make("button", { type: "button", on: { click: act("again") } }, job.kind === "erase" ? "Go on" : "Again")));
    } else {
      place.append(make("progress", { "aria-label": job.kind }), make("div", { class: "line" }, words, make("button", { type: "button", on: { click: act("cancel") } }, "Cancel")));
    }
  }
  if (!job || isOver(job)) return;
  const bar = place.querySelector("progress");
  const [stage, done, total] = job.stage || [job.state === "waiting" ? "waiting" : job.kind, 0, null];
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  const count = total ? ` ${done} of ${total}` : done ? ` ${done}` : "";
  place.querySelector("span").textContent = `${SAID[stage] || "Starting"}${count}${timeLeft(job)}`;
}

// ---- the list of clips ------------------------------------------------------------------------------------------

function showClips() {
  const clips = all().filter((job) => job.kind === "clip");
  byId("clips-title").hidden = clips.length === 0;
  const list = byId("clips");
  const old = new Map([...list.children].map((item) => [item.dataset.id, item]));
  list.replaceChildren(...clips.map((clip) => {
    const known = old.get(clip.id);
    const item = known && known.dataset.state === clip.state ? known : clipItem(clip);
    const state = item.querySelector(".job");
    if (state) showJob(state, clip);
    return item;
  }));
}

function clipItem(clip) {
  const remove = attempt(async () => {
    if (window.confirm(`Delete “${clip.title}” and its results?`)) await ask("DELETE", `/api/jobs/${clip.id}`);
  });
  const thumb = make("div", { class: "thumb" });
  const under = make("div", { class: "under" });
  if (clip.state === "done") {
    const middle = Math.floor(clip.result.frames / 2);
    thumb.append(make("img", { src: `/api/jobs/${clip.id}/frames/${middle}`, alt: "", loading: "lazy" }));
    under.append(make("a", { href: `#clip/${clip.id}` }, clip.title));
  } else {
    under.append(make("span", {}, clip.title));
  }
  under.append(make("button", { type: "button", class: "plain", "aria-label": `Delete ${clip.title}`, on: { click: remove } }, "Delete"));
  if (clip.state === "done") under.append(make("span", { class: "quiet" }, `${clip.result.width} x ${clip.result.height}, ${clip.result.seconds.toFixed(1)} s`));
  else under.append(make("div", { class: "job" }));
  return make("li", { class: "clip", "data-id": clip.id, "data-state": clip.state }, thumb, under);
}

const choose = attempt(async (file) => {
  if (!file) return;
  uploading = new XMLHttpRequest();
  byId("upload").hidden = false;
  byId("upload-name").textContent = file.name;
  byId("upload-bar").value = 0;
  try {
    const clip = await new Promise((resolve, reject) => {
      const request = uploading;
      request.upload.onprogress = (event) => { byId("upload-bar").value = event.loaded / event.total; };
      request.onload = () => {
        if (request.status === 201) resolve(JSON.parse(request.responseText));
        else reject(new Error(textOf(request.responseText)));
      };
      request.onerror = () => reject(new Error("The upload was broken off. The clip may be larger than there is room for."));
      request.onabort = () => resolve(null);
      request.open("POST", "/api/clips");
      request.setRequestHeader("content-type", "application/octet-stream");
      request.setRequestHeader("x-clip-name", encodeURIComponent(file.name));
      request.send(file);
    });
    if (clip) openWhenReady(clip);
  } finally {
    byId("upload").hidden = true;
    byId("file").value = "";
    uploading = null;
  }
});

function textOf(answer) {
  try {
    return JSON.parse(answer).detail;
  } catch {
    return answer.slice(0, 300) || "The server refused the clip.";
  }
}

function openWhenReady(clip) {
  if (!jobs.has(clip.id)) jobs.set(clip.id, clip);
  window.location.hash = `#clip/${clip.id}`;
}

// ---- the bench --------------------------------------------------------------------------------------------------

const player = new Player(byId("canvas"), {
  onFrame: (number) => {
    byId("scrub").value = number;
    const { rate } = player.clip.result;
    const said = `${(number / rate).toFixed(2)} s, frame ${number}`;
    byId("clock").textContent = `${(number / rate).toFixed(2)} s · ${number}`;
    byId("scrub").setAttribute("aria-valuetext", said);
  },
  onPoint: (frame, point) => pointAt({ frame, point }),
  onBox: (frame, box) => pointAt({ frame, box }),
  onSplit: (part) => {
    player.split = part;
    byId("compare").value = Math.round(1000 * part);
    player.draw();
  },
  onPlaying: (isPlaying) => {
    byId("play").setAttribute("aria-pressed", isPlaying);
    byId("play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  },
});

const pointAt = attempt(async (mark) => {
  const follow = latest("follow", [shownClip]);
  const kept = follow && follow.state === "failed" ? [] : marks;
  marks = [...kept, mark];
  if (follow && !isOver(follow)) await ask("POST", `/api/jobs/${follow.id}/cancel`);
  await ask("POST", "/api/follow", { clip: shownClip, marks });
});

const takeMoving = attempt(async () => {
  marks = [];
  await ask("POST", "/api/follow", { clip: shownClip, marks });
});

const beginAgain = attempt(async () => {
  marks = [];
  for (const job of all().filter((one) => one.kind === "follow" && one.parent === shownClip)) await ask("DELETE", `/api/jobs/${job.id}`);
});

const eraseNow = attempt(async () => {
  const follow = latest("follow", [shownClip]);
  const dilate = Math.max(0, Math.min(60, Math.round(Number(byId("dilate").value) || 0)));
  await ask("POST", "/api/erase", {
    follow: follow.id, preset: byId("preset").value, dilate, feather: Math.min(3, dilate), lossless: byId("lossless").checked,
  });
});

function showWork() {
  const clip = jobs.get(shownClip);
  if (!clip) {
    window.location.hash = "#erase";
    return;
  }
  byId("clip-title").textContent = clip.title;
  const isReady = clip.state === "done";
  byId("waiting").hidden = isReady || isOver(clip);
  if (!isReady) {
    byId("clip-facts").textContent = isOver(clip) ? clip.error || "Cancelled." : "";
    const [stage, done, total] = clip.stage || ["waiting", 0, null];
    byId("waiting-text").textContent = `${SAID[stage]} ${total ? `${done} of ${total}` : ""}`;
  } else if (player.clip === null || player.clip.id !== clip.id) {
    const facts = clip.result;
    byId("clip-facts").textContent = `${facts.width} x ${facts.height}, ${facts.frames} frames, ${Number(facts.rate.toFixed(2))} a second${facts.sound ? ", with sound" : ""}${facts.damaged ? `, damaged in ${facts.damaged} places` : ""}`;
    byId("scrub").max = facts.frames - 1;
    player.open(clip);
  }
  const follow = latest("follow", [clip.id]);
  const erase = follow ? latest("erase", [follow.id]) : undefined;
  const isFollowed = Boolean(follow) && follow.state === "done";
  const isErased = Boolean(erase) && erase.state === "done";
  if (follow && marks.length === 0) marks = [...follow.request.marks];
  byId("mark-hint").textContent = !follow ? "Click on the thing in the picture."
    : isFollowed ? `Seen in ${follow.result.seen} of ${follow.result.frames} frames. Click on what is missing, or on a further thing.`
    : "Its mask appears while it is followed.";
  if (isErased) byId("mark-hint").textContent = "Drag over the picture to compare before and after.";
  byId("unmark").hidden = !follow;
  byId("moving").hidden = Boolean(follow);
  for (const input of document.querySelectorAll("input[name=tool]")) input.disabled = !isReady || isErased;
  byId("moving").disabled = !isReady;
  showJob(byId("follow-state"), follow);
  byId("erase").disabled = !isFollowed || (Boolean(erase) && !isOver(erase));
  byId("erase").textContent = isErased ? "Erase again" : "Erase";
  byId("erase").classList.toggle("primary", !isErased);
  showJob(byId("erase-state"), erase);
  byId("step-done").hidden = !isErased;
  byId("compare-line").hidden = !isErased;
  if (isErased) {
    const { copied_share: copied, invented_share: invented, seconds, bytes } = erase.result;
    byId("done-facts").textContent = `${(100 * copied).toFixed(1)} % of what was hidden copied from other frames, ${(100 * invented).toFixed(1)} % made up; ${seconds.toFixed(0)} s, ${amount(bytes, "B")}.`;
    byId("download").href = `/api/jobs/${erase.id}/result`;
  }
  const done = follow && follow.stage ? follow.stage[1] : 0;
  const changed = player.masks !== follow || (done !== followedFrames && !isFollowed);
  followedFrames = done;
  if (isReady && (changed || (player.after && player.after.id) !== (isErased ? erase.id : null))) {
    player.set({ masks: follow || null, after: isErased ? erase : null, marks });
  }
}

// ---- pages and events -------------------------------------------------------------------------------------------

function refresh() {
  if (shownClip) showWork();
  else showClips();
  const counted = wish && jobs.get(wish);
  if (counted) {
    showJob(byId("profile-state"), counted);
    if (counted.state === "done") {
      wish = null;
      showProfile(counted);
    }
  }
}

function route() {
  const [page, id] = window.location.hash.slice(1).split("/");
  const shown = page === "clip" ? "erase" : ["reports", "costs"].includes(page) ? page : "erase";
  const clip = page === "clip" && id ? id : null;
  if (clip !== shownClip) {
    player.pause();
    player.clear();
    marks = [];
    shownClip = clip;
  }
  for (const section of document.querySelectorAll(".page")) section.hidden = section.id !== `page-${shown}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("start").hidden = shownClip !== null;
  byId("work").hidden = shownClip === null;
  refresh();
  if (shown === "reports") attempt(showReports)(ask, id);
  if (shown === "costs") attempt(showCosts)(ask);
}

window.addEventListener("hashchange", () => {
  route();
  byId("content").focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
byId("file").addEventListener("change", (event) => choose(event.target.files[0]));
byId("upload-cancel").addEventListener("click", () => uploading && uploading.abort());
byId("sample").addEventListener("click", attempt(async () => openWhenReady(await ask("POST", "/api/sample"))));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && !shownClip) choose(event.dataTransfer.files[0]);
  });
}
byId("play").addEventListener("click", () => (player.isPlaying ? player.pause() : player.play()));
byId("scrub").addEventListener("input", (event) => {
  player.pause();
  player.show(Number(event.target.value));
});
byId("compare").addEventListener("input", (event) => {
  player.split = event.target.value / 1000;
  player.draw();
});
for (const input of document.querySelectorAll("input[name=tool]")) {
  input.addEventListener("change", () => { player.tool = input.value; });
}
byId("moving").addEventListener("click", takeMoving);
byId("unmark").addEventListener("click", beginAgain);
byId("erase").addEventListener("click", eraseNow);
byId("profile").addEventListener("submit", attempt(async (event) => {
  event.preventDefault();
  byId("profile-result").hidden = true;
  wish = (await ask("POST", "/api/profile", profileOrder(event.target))).id;
  refresh();
}));
listen();
