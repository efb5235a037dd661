// Puts the page together: facts, summary, speakers, keys.

function fill(list, entries) {
  for (const [term, text] of entries) {
    const name = document.createElement("dt"), value = document.createElement("dd");
    name.textContent = term;
    value.textContent = text;
    list.appendChild(document.createElement("div")).append(name, value);
  }
}

function items(list, texts) {
  for (const text of texts) list.appendChild(document.createElement("li")).textContent = text;
}

function describe(report) {
  element("file").textContent = report.file;
  items(element("facts"), [
    `${report.width} × ${report.height}`,
    `${+report.fps.toFixed(2)} fps`,
    clock(report.endS - report.startS, 0),
    `${report.frames.toLocaleString("en")} frames`,
    report.audioS ? "with audio" : "no audio",
    ...(report.complete ? [] : ["in part"]),
  ]);
  items(element("notes"), report.notes);
  element("notes").hidden = !report.notes.length;
  const speaking = report.speakers.filter((speaker) => speaker.speakingS > 0);
  element("show-tracks-label").hidden = report.speakers.length === report.tracks.length;
  fill(element("summary"), [
    ...(report.hasPersons ? [["Persons", report.speakers.length]] : []),
    ["Face tracks", report.tracks.length],
    ["Shots", report.cutsS.length + 1],
    ...(report.audioS ? [
      [report.hasPersons ? "Persons who speak" : "Tracks that speak", speaking.length],
      ["Speech", length(report.speechS)],
    ] : []),
  ]);
  fill(element("meaning"), Object.entries(report.meaning));
  fill(element("settings"), Object.entries(report.settings).map(([name, value]) => [name, String(value)]));
  element("threshold").textContent = report.threshold;
  element("legend").hidden = !report.audioS;
  element("no-audio").hidden = Boolean(report.audioS);
  element("no-faces").hidden = report.tracks.length > 0;
  for (const key of document.querySelectorAll(".key")) {
    key.hidden = key.classList.contains("no-score-key") === Boolean(report.audioS);
  }
}

/** A bar a person, or a face track where persons were not told apart; those who spoke longest first. */
function listSpeakers(report, onFace) {
  if (!report.audioS) return;
  const speakers = [...report.speakers].sort((a, b) => b.speakingS - a.speakingS); // stable
  const longest = Math.max(...speakers.map((speaker) => speaker.speakingS), 1e-3);
  for (const speaker of speakers) {
    const row = document.createElement("button"), bar = document.createElement("span");
    row.type = "button";
    bar.className = "bar";
    bar.style.setProperty("--share", speaker.speakingS / longest);
    const turns = report.hasPersons ? `${speaker.speech.length} ${speaker.speech.length === 1 ? "turn" : "turns"}, ` : "";
    const times = `${turns}${length(speaker.speakingS)} of ${length(speaker.seenS)} seen`;
    row.append(thumbnail(speaker), named(speaker.label, times, bar));
    row.addEventListener("click", () => onFace(speaker));
    element("speakers").appendChild(document.createElement("li")).append(row);
  }
}

function listenToKeys(report, player, timeline) {
  const actions = {
    " ": () => player.toggle(),
    ArrowLeft: (event) => player.seek(player.nowS - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => player.seek(player.nowS + (event.shiftKey ? 10 : 1)),
    Home: () => player.seek(report.timesS[0]),
    End: () => player.seek(report.endS),
    ",": () => player.step(-1),
    ".": () => player.step(1),
    "+": () => timeline.zoom(0.5),
    "-": () => timeline.zoom(2),
  };
  document.addEventListener("keydown", (event) => {
    const pressed = event.target.closest("button, summary, input, label");
    if (event.ctrlKey || event.metaKey || event.altKey || (event.key === " " && pressed)) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action(event);
  }, true); // before the video's own controls, which would act a second time
}

async function start() {
  const report = await readReport();
  readColours();
  describe(report);
  let player = null;
  const seek = (timeS) => player.seek(timeS);
  const goToFace = (shown) => {
    const timeS = shown.speech.length ? shown.speech[0][0] : shown.startS;
    timeline.reveal(timeS);
    // A hair later: the beginning of a frame may round to the frame before.
    seek(timeS + 0.001);
  };
  const timeline = new Timeline(report, seek, goToFace);
  listSpeakers(report, goToFace);
  player = new Player(report, (timeS) => timeline.setTime(timeS, element("follow").checked));
  listenToKeys(report, player, timeline);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    timeline.draw();
    player.draw();
  });
  document.documentElement.dataset.ready = "yes";
}

start();
