// Where the video comes from: the page itself, a file beside it, or one that the reader chooses.

const MESSAGES = {
  none: "The report works without the video; to see it, choose a file that your browser plays.",
  absent: (url) => `The video could not be loaded from “${url}”.`,
  refused: (name) => `Your browser does not play “${name}”.`,
};

function loadMedia(report, video) {
  const media = report.media;
  if (media.fault) {
    element("shown").textContent = media.fault;
    element("shown").hidden = !media.name;
  }
  video.addEventListener("error", () => {
    const name = video.dataset.chosen || media.name;
    sayMissing(media.url && !video.dataset.chosen ? MESSAGES.absent(decodeURIComponent(media.url)) : MESSAGES.refused(name));
  });
  video.addEventListener("loadedmetadata", () => { element("missing").hidden = true; });
  element("chooser").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (!file) return;
    video.dataset.chosen = file.name;
    video.src = URL.createObjectURL(file);
  });
  const base64 = element("report-video");
  if (base64.textContent) {
    video.src = URL.createObjectURL(new Blob(decoded(base64.textContent), { type: media.type }));
    base64.remove(); // up to 43 MB that nobody needs twice
  } else if (media.url) {
    video.src = media.url;
  } else {
    sayMissing(`${media.fault} ${MESSAGES.none}`);
  }
}

/** Bytes of a long base64 text, in parts: one call for all would hold several copies of it. */
function decoded(base64) {
  const PART = 1 << 22; // characters, a multiple of 4
  const parts = [];
  for (let at = 0; at < base64.length; at += PART) parts.push(bytesOf(base64.slice(at, at + PART)));
  return parts;
}

function sayMissing(text) {
  element("missing-text").textContent = text;
  element("missing").hidden = false;
}
