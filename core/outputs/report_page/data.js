// What the page knows: facts and tracks from JSON, and the faces of all frames unpacked into typed arrays.

function element(id) {
  return document.getElementById(id);
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Last index whose value is at most `value`; -1 if all are more. */
function lastAtMost(sorted, value) {
  let low = -1, high = sorted.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle; else high = middle;
  }
  return low;
}

/**
 * The report's data.
 * speakers: persons, or where persons were not told apart the tracks; each with its tracks, and startS of the first.
 * timesS: presentation time of each frame, as players show it; startS is when the file begins. tracks: as in the
 * JSON, with startS, endS and `first`, the index of the track's first frame in edges[0..3] (x1, y1, x2, y2 in pixels)
 * and probabilities (null without audio), which hold all tracks end to end.
 */
async function readReport() {
  const report = JSON.parse(element("report-facts").textContent);
  const faces = report.tracks.reduce((sum, track) => sum + track.frames, 0);
  const bytes = await inflate(bytesOf(element("report-faces").textContent));

  const steps = new DataView(bytes.buffer);
  report.timesS = new Float64Array(report.frames);
  for (let i = 0, time = 0; i < report.frames; i++) {
    time += steps.getInt32(4 * i, true);
    report.timesS[i] = time / report.units.time;
  }

  let at = 4 * report.frames;
  report.edges = [0, 1, 2, 3].map(() => {
    const edge = new Float32Array(faces);
    for (let i = 0, value = 0; i < faces; i++) {
      value = (value + bytes[at + i] + 256 * bytes[at + faces + i]) & 0xffff;
      edge[i] = value / report.units.box;
    }
    at += 2 * faces;
    return edge;
  });

  report.probabilities = null;
  if (report.audioS) {
    report.probabilities = new Float32Array(faces);
    for (let i = 0, value = 0; i < faces; i++) {
      value = (value + bytes[at + i]) & 0xff;
      report.probabilities[i] = value / report.units.probability;
    }
  }

  let first = 0;
  for (const track of report.tracks) {
    track.first = first;
    first += track.frames;
    track.startS = report.timesS[track.firstFrame];
    const after = track.firstFrame + track.frames;
    track.endS = after < report.frames ? report.timesS[after] : report.endS;
  }
  const byId = new Map(report.tracks.map((track) => [track.id, track]));
  for (const speaker of report.speakers) {
    speaker.tracks = speaker.tracks.map((id) => byId.get(id));
    speaker.startS = speaker.tracks[0].startS;
    // The face that is shown longest stands for all.
    speaker.thumbnail = speaker.tracks.reduce((best, track) => (track.frames > best.frames ? track : best)).thumbnail;
  }
  return report;
}

/** The faces visible at a time: [track, index into edges and probabilities] each. */
function facesAt(report, timeS) {
  const frame = lastAtMost(report.timesS, timeS + 1e-3); // players round times to their own clock
  const faces = [];
  for (const track of report.tracks) {
    const i = frame - track.firstFrame;
    if (i >= 0 && i < track.frames) faces.push([track, track.first + i]);
  }
  return faces;
}

/** 83.456 -> "1:23.5"; "1:00:23.5" from an hour on. */
function clock(timeS, decimals = 1) {
  const scale = 10 ** decimals;
  const rounded = Math.round(Math.max(0, timeS) * scale) / scale;
  const hours = Math.floor(rounded / 3600), minutes = Math.floor(rounded / 60) % 60;
  const seconds = (rounded % 60).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

/** 5.25 -> "5.3 s"; from a minute on as a clock. */
function length(seconds) {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${clock(seconds, 0)} min`;
}
