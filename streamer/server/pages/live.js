// The live streams of this server: players over WHEP, what is hidden in them, and the controls.
import { iceServers } from "./ice.js";
import { ask, headers } from "./key.js";

const list = document.getElementById("live-streams");
const section = document.getElementById("live");
const notice = document.getElementById("live-status");
const cards = new Map();
const PATIENCE_MS = 15000; // a connection that was cut without a word is silent; the server says something every 10 s
const SVG = "http://www.w3.org/2000/svg";

async function call(method, path, body, signal) {
  const answer = await fetch(path, {
    method,
    headers: { ...headers(), ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
    signal,
  });
  if (answer.status === 401) ask();
  if (!answer.ok) {
    const said = (await answer.json().catch(() => ({}))).error;
    throw Object.assign(new Error(said ?? `the server answered ${answer.status}`), { status: answer.status });
  }
  return answer.status === 204 ? null : answer.json();
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Player {
  constructor(name, video) {
    this.path = `${name}/whep`;
    this.video = video;
    this.wanted = false;
    this.peer = null;
    this.session = null;
    this.retry = 0;
  }

  start() {
    this.wanted = true;
    this.play();
  }

  async play() {
    const servers = await this.servers();
    if (!this.wanted || this.peer) return;
    const peer = new RTCPeerConnection({ iceServers: servers });
    this.peer = peer;
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    const shown = new MediaStream();
    peer.ontrack = (event) => {
      shown.addTrack(event.track);
      this.video.srcObject = shown;
    };
    peer.onconnectionstatechange = () => {
      if (["failed", "closed"].includes(peer.connectionState)) this.again(peer);
    };
    try {
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      const answer = await fetch(this.path, {
        method: "POST",
        headers: { ...headers(), "Content-Type": "application/sdp" },
        body: peer.localDescription.sdp,
      });
      if (answer.status === 401) ask();
      if (answer.status !== 201) throw new Error(`WHEP answered ${answer.status}`);
      const session = new URL(answer.headers.get("Location"), answer.url);
      if (this.peer !== peer) return end(session); // left while it was asked for
      this.session = session;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      this.retry = 0;
    } catch (error) {
      console.warn(error);
      this.again(peer);
    }
  }

  async servers() {
    try {
      const answer = await fetch(this.path, { method: "OPTIONS", headers: headers() });
      return iceServers(answer.headers.get("Link"));
    } catch {
      return [];
    }
  }

  again(peer) {
    if (!this.wanted || this.peer !== peer) return;
    this.hangUp();
    this.retry = Math.min(this.retry + 1, 5);
    this.timer = setTimeout(() => this.play(), 1000 * this.retry);
  }

  leave() {
    this.wanted = false;
    this.hangUp();
  }

  hangUp() {
    clearTimeout(this.timer);
    const { peer, session } = this;
    this.peer = this.session = null;
    if (session) end(session);
    peer?.close();
    this.video.srcObject = null;
  }
}

function end(session) {
  fetch(session, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
}

function gathered(peer) {
  return new Promise((done) => {
    if (peer.iceGatheringState === "complete") return done();
    peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && done());
    setTimeout(done, 1000);
  });
}

class Card {
  constructor(stream) {
    this.name = stream.name;
    this.zones = null;
    this.corners = null;
    this.build();
    this.player = new Player(this.name, this.video);
    new ResizeObserver(() => this.place()).observe(this.stage);
    this.video.addEventListener("resize", () => this.place());
    this.update(stream);
  }

  build() {
    this.state = element("span", { className: "stream-state" });
    this.source = element("span", { className: "stream-source" });
    this.problem = element("span", { className: "stream-problem" });
    this.video = element("video", { muted: true, autoplay: true, playsInline: true });
    this.overlay = document.createElementNS(SVG, "svg");
    this.overlay.setAttribute("viewBox", "0 0 1 1");
    this.overlay.setAttribute("preserveAspectRatio", "none");
    this.stage = element("div", { className: "stream-stage" }, this.video, this.overlay);
    this.numbers = element("dl", { className: "stream-numbers" });
    this.style = this.choice("Style", "style", [["", "as configured"], ["blur", "blur"], ["mosaic", "mosaic"], ["solid", "solid"]]);
    this.hide = this.choice("Hide", "hide", [
      ["", "as configured"], ["everything", "faces and plates"], ["faces", "faces"], ["plates", "licence plates"],
    ]);
    this.sound = element("button", {
      type: "button", hidden: true, onclick: () => {
        this.video.muted = !this.video.muted;
        this.sound.textContent = this.video.muted ? "Sound on" : "Sound off";
      }, textContent: "Sound on",
    });
    this.power = element("button", { type: "button", onclick: () => this.change({ enabled: !this.running }) });
    this.mask = element("button", { type: "button", textContent: "Draw a masked zone", onclick: () => this.draw("mask") });
    this.keep = element("button", { type: "button", textContent: "Draw a zone never masked", onclick: () => this.draw("keep") });
    this.clear = element("button", {
      type: "button", textContent: "Remove zones", onclick: () => this.change({ zones: { mask: [], keep: [] } }),
    });
    const controls = element(
      "form", { className: "stream-controls", onsubmit: (event) => event.preventDefault() },
      this.power, this.sound, this.style.label, this.hide.label, this.mask, this.keep, this.clear,
    );
    const head = element(
      "div", { className: "stream-head" },
      element("h3", { textContent: this.name }), this.state, this.source, this.problem,
    );
    this.root = element("article", {}, head, this.stage, this.numbers, controls);
    this.overlay.addEventListener("pointerdown", (event) => this.corner(event));
    this.overlay.addEventListener("dblclick", () => this.close());
  }

  choice(text, key, options) {
    const select = element("select", { onchange: () => this.change({ [key]: select.value || null }) });
    for (const [value, label] of options) select.append(element("option", { value, textContent: label }));
    return { label: element("label", {}, `${text} `, select), select };
  }

  async change(values) {
    try {
      this.update(await call("PATCH", `v1/streams/${this.name}`, values));
      notice.textContent = "";
    } catch (error) {
      notice.textContent = error.message;
    }
  }

  update(stream) {
    const running = !["stopped", "ended", "failed"].includes(stream.state);
    this.running = running;
    this.state.textContent = stream.state;
    this.state.className = `stream-state ${stream.state}`;
    this.source.textContent = stream.source;
    const outlets = (stream.outlets ?? []).filter((one) => one.problem).map((one) => `${one.name}: ${one.problem}`);
    this.problem.textContent = [stream.problem, ...outlets].filter(Boolean).join("; ");
    this.sound.hidden = !stream.sound;
    this.power.textContent = running ? "Stop" : "Start";
    for (const key of ["style", "hide"]) {
      if (document.activeElement !== this[key].select) this[key].select.value = stream.settings[key] ?? "";
    }
    this.zones = stream.settings.zones;
    this.clear.hidden = !(this.zones?.mask?.length || this.zones?.keep?.length);
    this.show(stream);
    const shown = running && stream.encoder && stream.settings.webrtc;
    if (shown) {
      if (!this.player.wanted) this.player.start();
      if (!this.following) this.follow();
    } else if (this.player.wanted) {
      this.player.leave();
      this.following?.abort();
      this.objects = [];
    }
    this.paint();
  }

  show(stream) {
    const ms = (value) => (value == null ? "–" : `${Math.round(value)} ms`);
    const rows = {
      Picture: stream.width ? `${stream.width} × ${stream.height}` : "–",
      "Frames a second": stream.fps?.toFixed(1) ?? "–",
      "Latency p50": ms(stream.latency_ms?.p50),
      "Latency p95": ms(stream.latency_ms?.p95),
      Viewers: stream.viewers ?? 0,
      "Masks in view": stream.masks ?? 0,
      "Frames covered": stream.frames?.covered ?? 0,
      "Frames dropped": stream.frames?.dropped ?? 0,
      Reconnects: stream.reconnects ?? 0,
    };
    this.numbers.replaceChildren(...Object.entries(rows).map(([name, value]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
  }

  async follow() {
    const following = new AbortController();
    this.following = following;
    let silence;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => following.abort(), PATIENCE_MS);
    };
    listen();
    try {
      const answer = await fetch(`v1/streams/${this.name}/objects`, { headers: headers(), signal: following.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        listen();
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        const last = events.filter((one) => one.startsWith("data: ")).pop();
        if (last) {
          this.objects = JSON.parse(last.slice(6)).objects;
          this.paint();
        }
      }
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error);
    }
    clearTimeout(silence);
    if (this.following !== following) return;
    this.following = null; // the next update follows again
    this.objects = [];
    this.paint();
  }

  place() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const stage = this.video.getBoundingClientRect();
    const scale = width ? Math.min(stage.width / width, stage.height / height) : 0;
    Object.assign(this.overlay.style, {
      width: `${width * scale}px`, height: `${height * scale}px`,
      left: `${(stage.width - width * scale) / 2}px`, top: `${(stage.height - height * scale) / 2}px`,
    });
  }

  paint() {
    const shapes = [];
    for (const kind of ["mask", "keep"]) {
      for (const corners of this.zones?.[kind] ?? []) shapes.push(polygon("polygon", corners, kind));
    }
    if (this.corners) shapes.push(polygon("polyline", this.corners, this.kind));
    for (const { box } of this.objects ?? []) {
      const shape = document.createElementNS(SVG, "rect");
      for (const [key, value] of [["x", box.x], ["y", box.y], ["width", box.w], ["height", box.h]]) shape.setAttribute(key, value);
      shapes.push(shape);
    }
    this.overlay.replaceChildren(...shapes);
  }

  draw(kind) {
    const ready = this.corners?.length >= 3;
    if (this.corners && ready) return this.close();
    const stop = this.corners && this.kind === kind;
    this.corners = stop ? null : [];
    this.kind = kind;
    this.marks();
  }

  marks() {
    this.overlay.classList.toggle("drawing", Boolean(this.corners));
    for (const kind of ["mask", "keep"]) this[kind].setAttribute("aria-pressed", String(Boolean(this.corners) && this.kind === kind));
    notice.textContent = this.corners ? "Click the zone's corners on the picture; press the button again to finish." : "";
    this.paint();
  }

  corner(event) {
    if (!this.corners) return;
    const place = this.overlay.getBoundingClientRect();
    const share = (value) => Math.min(1, Math.max(0, Math.round(value * 1e4) / 1e4));
    const [x, y] = [share((event.clientX - place.left) / place.width), share((event.clientY - place.top) / place.height)];
    const last = this.corners.at(-1);
    if (last && Math.hypot(x - last[0], y - last[1]) < .01) return; // a double click is one corner
    this.corners.push([x, y]);
    this.paint();
  }

  close() {
    if (!this.corners || this.corners.length < 3) return;
    const zones = { mask: [], keep: [], ...this.zones };
    const corners = this.corners;
    this.corners = null;
    this.marks();
    this.change({ zones: { ...zones, [this.kind]: [...zones[this.kind], corners] } });
  }

  remove() {
    this.player.leave();
    this.following?.abort();
    this.root.remove();
  }
}

function polygon(tag, corners, kind) {
  const shape = document.createElementNS(SVG, tag);
  shape.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
  shape.setAttribute("class", kind);
  return shape;
}

let known = false; // whether this server has live streams
let trouble = ""; // what the last look said

async function refresh() {
  try {
    const streams = await call("GET", "v1/streams", undefined, AbortSignal.timeout(PATIENCE_MS));
    known = true;
    for (const stream of streams) {
      const card = cards.get(stream.name);
      if (card) card.update(stream);
      else {
        cards.set(stream.name, new Card(stream));
        list.append(cards.get(stream.name).root);
      }
    }
    for (const [name, card] of cards) {
      if (!streams.some((stream) => stream.name === name)) {
        card.remove();
        cards.delete(name);
      }
    }
    section.hidden = false;
    if (trouble && notice.textContent === trouble) notice.textContent = "";
    trouble = "";
  } catch (error) {
    if (error.status === 404 && !known) return; // this server has no live streams
    section.hidden = false;
    if (!notice.textContent || notice.textContent === trouble) notice.textContent = trouble = error.message;
  }
  setTimeout(refresh, 1000);
}

addEventListener("pagehide", () => { for (const card of cards.values()) card.player.leave(); });
refresh();
