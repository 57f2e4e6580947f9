"use strict";
// The page's behaviour: answers by buttons and keys, kept in the browser, saved as labels.csv.
(() => {
  const review = JSON.parse(document.getElementById("review").textContent);
  const names = Object.keys(review.schemes);
  const KEYS = "123456789" + "0qwertyiopasdfghjklzcvm"; // of labels; u, x and n are commands
  const byId = (id) => document.getElementById(id);
  const storageKey = "ugrie-review-" + review.id;

  // answers: by image, {labels: {scheme: index, or -1 for "can't tell"}, excluded: true for "not for this set"}
  let state = { person: "", at: 0, sharp: false, compare: false, answers: {} };
  let past = []; // for undo: {at, image, answer}
  let uncovered = false;
  let stored = true;

  const imageAt = () => review.images[state.at];
  const answerOf = (image) => state.answers[image.image] || { labels: {}, excluded: false };
  const isDone = (image) => answerOf(image).excluded || names.every((name) => name in answerOf(image).labels);
  const activeScheme = () => names.find((name) => !(name in answerOf(imageAt()).labels));

  function restore() {
    try {
      const kept = JSON.parse(localStorage.getItem(storageKey));
      if (kept && typeof kept === "object") state = { ...state, ...kept };
    } catch {
      stored = false;
    }
    if (!(state.at >= 0 && state.at < review.images.length)) state.at = 0;
  }

  function keep() {
    try {
      localStorage.setItem(storageKey, JSON.stringify(state));
    } catch {
      stored = false;
    }
  }

  function say(text) {
    byId("message").textContent = text;
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function buildSchemes() {
    for (const name of names) {
      const scheme = review.schemes[name];
      const ordinal = scheme.kind === "ordinal";
      const choices = element("div", { className: ordinal ? "choices scale" : "choices" });
      scheme.labels.forEach((label, index) => {
        const text = ordinal ? String(scheme.values[index]) : label;
        const button = element("button", { type: "button" }, text, element("kbd", { ariaHidden: "true" }, KEYS[index].toUpperCase()));
        button.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-label", ordinal ? `${text}, ${label}` : label);
        button.setAttribute("aria-keyshortcuts", KEYS[index].toUpperCase());
        button.title = ordinal ? label : "";
        button.dataset.index = index;
        button.addEventListener("click", () => give(name, index));
        choices.append(button);
      });
      const fieldset = element("fieldset", { id: "scheme-" + name }, element("legend", {}, name), choices);
      if (ordinal) {
        const last = scheme.labels.length - 1;
        fieldset.append(element("p", { className: "ends" }, element("span", {}, scheme.labels[0]), element("span", {}, scheme.labels[last])));
      }
      byId("schemes").append(fieldset);
    }
  }

  function change(next) {
    const image = imageAt();
    past.push({ at: state.at, image: image.image, answer: state.answers[image.image] });
    const before = isDone(image);
    state.answers = { ...state.answers, [image.image]: next };
    say("");
    if (!before && isDone(image) && !(state.compare && !next.excluded)) forward();
    else draw();
  }

  function give(name, index) {
    const answer = answerOf(imageAt());
    change({ labels: { ...answer.labels, [name]: index }, excluded: false });
  }

  function cantTell() {
    const name = activeScheme();
    if (name !== undefined) give(name, -1);
  }

  function exclude() {
    const answer = answerOf(imageAt());
    change({ labels: answer.labels, excluded: !answer.excluded });
  }

  function undo() {
    const last = past.pop();
    if (!last) return say("There is nothing to undo.");
    const { [last.image]: _, ...others } = state.answers;
    state.answers = last.answer ? { ...others, [last.image]: last.answer } : others;
    go(last.at);
    say("Undone.");
  }

  function go(at) {
    if (at < 0 || at >= review.images.length) return;
    if (at !== state.at) uncovered = false;
    state.at = at;
    draw();
    byId("picture").focus(); // a button of the last image that kept the focus would be pressed by the space bar
  }

  // To the next image without an answer, around the end.
  function forward() {
    const count = review.images.length;
    for (let step = 1; step <= count; step++) {
      const at = (state.at + step) % count;
      if (!isDone(review.images[at])) return go(at);
    }
    draw();
    if (isDone(imageAt())) say("All images are answered. Save labels.csv now.");
  }

  function answerText(scheme, index) {
    if (index === -1) return ": can’t tell";
    return scheme.kind === "ordinal" && index !== undefined ? `: ${scheme.values[index]}, ${scheme.labels[index]}` : "";
  }

  function draw() {
    const image = imageAt();
    const answer = answerOf(image);
    const active = answer.excluded ? undefined : activeScheme();
    const picture = byId("image");
    const source = "data:image/jpeg;base64," + image.jpeg;
    if (picture.src !== source) picture.src = source;
    const shown = state.sharp || uncovered;
    picture.alt = `Image ${state.at + 1} of ${review.images.length}` + (shown ? "" : ", blurred");
    byId("uncover").classList.toggle("covered", !shown);
    byId("uncover").setAttribute("aria-pressed", String(shown));
    byId("place").textContent = `Image ${state.at + 1} of ${review.images.length}`;
    const done = review.images.filter(isDone).length;
    byId("progress").max = review.images.length;
    byId("progress").value = done;
    byId("count").textContent = `${done} of ${review.images.length} answered`;
    for (const name of names) {
      const fieldset = byId("scheme-" + name);
      fieldset.classList.toggle("active", name === active);
      for (const button of fieldset.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(!answer.excluded && answer.labels[name] === Number(button.dataset.index)));
      }
      fieldset.querySelector("legend").textContent = name + answerText(review.schemes[name], answer.excluded ? undefined : answer.labels[name]);
    }
    byId("exclude").setAttribute("aria-pressed", String(answer.excluded));
    byId("cant").disabled = active === undefined;
    byId("undo").disabled = past.length === 0;
    byId("previous").disabled = state.at === 0;
    byId("next").disabled = state.at === review.images.length - 1;
    drawModel(image, answer);
    byId("sharp").checked = state.sharp;
    byId("compare").checked = state.compare;
    if (byId("person").value !== state.person) byId("person").value = state.person;
    keep();
    if (!stored) say("This browser keeps nothing for this page: save your answers before you close it.");
  }

  // What the model says, once all is answered: one answer of it could lead another.
  function drawModel(image, answer) {
    const box = byId("model");
    box.hidden = answer.excluded || !isDone(image);
    if (box.hidden) return box.replaceChildren();
    const lines = names.map((name) => {
      const scheme = review.schemes[name];
      const predicted = image.predictions[name];
      const label = scheme.labels[predicted.choice];
      const text = scheme.kind === "ordinal" ? predicted.value.toFixed(1) : `${label}, ${Math.round(100 * predicted.probs[predicted.choice])} %`;
      return element("p", {}, `The model’s ${name}: ${text}`);
    });
    box.replaceChildren(...lines, element("p", { className: "quiet" }, "Why this image: " + image.why.join("; ") + "."));
  }

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  // Spreadsheets run a cell that begins with one of these.
  const plain = (text) => text.replace(/[\u0000-\u001f]/g, " ").replace(/^[=+\-@\s]+/, "").trim();

  function toCsv() {
    const rows = [["image", "person", ...names, "cant_tell", "not_for_set"]];
    for (const image of review.images) {
      const answer = state.answers[image.image];
      if (!answer || (!answer.excluded && !Object.keys(answer.labels).length)) continue;
      const labels = answer.excluded ? {} : answer.labels;
      rows.push([
        image.image,
        plain(state.person),
        ...names.map((name) => {
          const index = labels[name] ?? -1;
          if (index < 0) return "";
          const scheme = review.schemes[name];
          return scheme.kind === "ordinal" ? String(scheme.values[index]) : scheme.labels[index];
        }),
        names.filter((name) => labels[name] === -1).join(" "),
        answer.excluded ? "yes" : "",
      ]);
    }
    return rows.map((row) => row.map(quoted).join(",") + "\n").join("");
  }

  function fileName() {
    const person = plain(state.person).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
    return person ? `labels-${person}.csv` : "labels.csv";
  }

  function save() {
    const url = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
    const link = element("a", { href: url, download: fileName() });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`Saved as ${fileName()} where this browser saves files.`);
  }

  function parseCsv(text) {
    const rows = [[]];
    let cell = "", inside = false;
    for (let i = 0; i < text.length; i++) {
      const c = text[i];
      if (inside) {
        if (c === '"' && text[i + 1] === '"') { cell += '"'; i++; }
        else if (c === '"') inside = false;
        else cell += c;
      } else if (c === '"') inside = true;
      else if (c === "," || c === "\n") {
        rows.at(-1).push(cell.trim());
        cell = "";
        if (c === "\n") rows.push([]);
      } else cell += c;
    }
    rows.at(-1).push(cell.trim());
    return rows.filter((row) => row.length > 1);
  }

  function load(text) {
    const [header, ...rows] = parseCsv(text.replace(/^\ufeff/, ""));
    if (!header || !header.includes("image")) return say("This is no file of labels: choose one that a review’s page saved.");
    const records = rows.map((row) => Object.fromEntries(header.map((name, i) => [name, row[i] ?? ""])));
    const people = [...new Set(records.map((record) => record.person ?? ""))];
    const own = people.length === 1 ? people[0] : plain(state.person);
    if (!people.includes(own)) return say(`This file has answers of ${people.join(", ")}: type the name of one of them first.`);
    const known = new Set(review.images.map((image) => image.image));
    const loaded = {};
    for (const record of records.filter((each) => (each.person ?? "") === own && known.has(each.image))) {
      const labels = {};
      const cant = (record.cant_tell ?? "").split(" ");
      for (const name of names) {
        const scheme = review.schemes[name];
        const index = scheme.kind === "ordinal" ? scheme.values.indexOf(Number(record[name] || NaN)) : scheme.labels.indexOf(record[name]);
        if (index >= 0) labels[name] = index;
        else if (cant.includes(name)) labels[name] = -1;
      }
      loaded[record.image] = { labels, excluded: record.not_for_set === "yes" };
    }
    const count = Object.keys(loaded).length;
    if (!count) return say("None of the file’s images is in this review: is it another review’s file?");
    state.answers = { ...state.answers, ...loaded };
    if (own) state.person = own;
    past = [];
    draw();
    say(`Loaded the answers about ${count} ${count === 1 ? "image" : "images"}.`);
  }

  function listen() {
    byId("uncover").addEventListener("click", () => { uncovered = !uncovered; draw(); });
    byId("cant").addEventListener("click", cantTell);
    byId("exclude").addEventListener("click", exclude);
    byId("undo").addEventListener("click", undo);
    byId("previous").addEventListener("click", () => go(state.at - 1));
    byId("next").addEventListener("click", () => go(state.at + 1));
    byId("unanswered").addEventListener("click", forward);
    byId("save").addEventListener("click", save);
    byId("load").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      if (file) load(await file.text());
      event.target.value = "";
    });
    byId("forget").addEventListener("click", () => {
      if (!confirm("Delete all answers from this browser? Save them first if you need them.")) return;
      Object.assign(state, { answers: {}, at: 0 });
      past = [];
      draw();
      say("All answers are deleted from this browser.");
    });
    byId("person").addEventListener("input", (event) => { state.person = event.target.value; keep(); });
    byId("sharp").addEventListener("change", (event) => { state.sharp = event.target.checked; draw(); });
    byId("compare").addEventListener("change", (event) => { state.compare = event.target.checked; draw(); });
    byId("top").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("keydown", onKey);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox])")) return;
    // The space bar and Enter press what has the focus.
    const onButton = event.target.matches("button, summary");
    const key = event.key.toLowerCase();
    const commands = { x: cantTell, n: exclude, u: undo, backspace: undo, arrowleft: () => go(state.at - 1), arrowright: () => go(state.at + 1) };
    if (!onButton) commands.enter = forward;
    if (!onButton && !event.target.matches("input")) commands[" "] = () => byId("uncover").click();
    if (key in commands) {
      event.preventDefault();
      commands[key]();
      return;
    }
    const name = activeScheme() ?? (names.length === 1 ? names[0] : undefined);
    const index = KEYS.indexOf(key);
    if (key.length === 1 && index >= 0 && name !== undefined && index < review.schemes[name].labels.length) {
      event.preventDefault();
      give(name, index);
    }
  }

  restore();
  buildSchemes();
  listen();
  draw();
})();
