"""Results of `evaluate.py` as text for people; the main number, in full precision, on the first line."""

from collections.abc import Iterable, Mapping

GROUP_TITLES = {"by_faces": "faces in the frame", "by_face_width": "face width", "by_category": "category"}

ERROR_TITLES = {"missed": "missed", "false_alarm": "false alarm", "confusion": "of another"}


def given_as_text(result: Mapping) -> str:
    """Results of `core.evaluation.official.evaluate_given`."""
    lines = [
        f"average precision: {result['average_precision']!r}",
        f"  of {result['predictions']}: {result['rows']:,} rows, {result['positives']:,} speaking; "
        f"chance {result['chance']:.4f}",
        f"accuracy at {result['threshold']}:   {result['accuracy']:.4f}",
        f"ROC AUC:           {_number(result['roc_auc'])}",
    ]
    for key, title in GROUP_TITLES.items():
        if result[key]:
            lines.append(f"{title:<24}{'average precision':>18}{'chance':>9}{'rows':>11}")
        for name, group in (result[key] or {}).items():
            chance = group["positives"] / group["rows"] if group["rows"] else None
            value = _number(group["average_precision"])
            lines.append(f"  {name:<22}{value:>18}{_number(chance):>9}{group['rows']:>11,}")
    return _with_notes([*lines, *_intervals(result)], result["notes"])


def detected_as_text(result: Mapping) -> str:
    """Results of `core.evaluation.detected.evaluate_detected`."""
    faces, speaking, threshold = result["faces"], result["speaking_faces"], result["threshold"]
    matched, annotated = f"of {faces['matched']:,}", f"of {faces['annotated']:,}"
    numbers = [
        ("faces found (recall)", faces["recall"], f"{faces['matched']:,} {annotated} annotated"),
        ("faces right (precision)", faces["precision"], f"{faces['matched']:,} of {faces['predicted']:,} predicted"),
        ("speaking faces found", speaking["recall"], f"{speaking['matched']:,} of {speaking['annotated']:,} annotated"),
        ("average precision, matched faces only", result["average_precision_matched"], matched),
        ("average precision, missed faces scored lowest", result["average_precision_annotated"], annotated),
        (f"accuracy at {threshold}, matched faces only", result["accuracy"], matched),
        (f"accuracy at {threshold}, missed faces as silent", result["accuracy_annotated"], annotated),
        ("ROC AUC, matched faces only", result["roc_auc"], matched),
    ]
    if "average_precision_ego4d" in result:
        numbers.append(("average precision, by Ego4D's rules", result["average_precision_ego4d"], annotated))
    lines = [
        f"average precision: {result['average_precision']!r}",
        f"  of {result['predictions']}, on detected tracks: all predictions at annotated times ranked, missed speaking "
        f"faces never found; chance {result['chance']:.4f}",
        f"  boxes match from an overlap of {result['min_overlap']:g} (intersection over union)",
        *(f"{title:<48}{_number(value):>8}  {counted}" for title, value, counted in numbers),
    ]
    for key, title in GROUP_TITLES.items():
        if result[key]:
            lines.append(f"{title:<24}{'average precision':>18}{'recall':>9}{'precision':>11}{'annotated':>11}")
        for name, group in (result[key] or {}).items():
            values = (_number(group[column]) for column in ("average_precision", "recall", "precision"))
            lines.append("  {:<22}{:>18}{:>9}{:>11}{:>11,}".format(name, *values, group["annotated"]))
    return _with_notes([*lines, *_intervals(result)], result["notes"])


def people_as_text(result: Mapping) -> str:
    """Results of `core.people.evaluation.evaluate_people`."""
    pairs, errors = result["pairs"], result["diarisation"]
    lines = [
        f"pairwise F1: {pairs['f1']!r}",
        f"  of {result['predictions']}: {result['matched']:,} of {result['tracks']:,} tracks in {result['videos']:,} "
        f"videos are of annotated faces; {pairs['same']:,} pairs of one person, {pairs['found']:,} put together",
        f"precision:              {_number(pairs['precision'])}",
        f"recall:                 {_number(pairs['recall'])}",
    ]
    if errors is not None:
        parts = ", ".join(f"{errors[name]:.1f} s {title}" for name, title in ERROR_TITLES.items())
        lines.append(
            f"diarisation error rate: {_number(errors['rate'])}  of {errors['total']:.1f} s of speech: {parts}"
        )
    return _with_notes(lines, result["notes"])


def columbia_as_text(result: Mapping) -> str:
    """Results of `core.evaluation.columbia.evaluate_columbia`."""
    lines = [
        f"mean F1: {result['mean_f1']!r}",
        f"  of {result['predictions']}, over {', '.join(result['averaged']) or 'nobody'}; {result['scores']}",
        f"{'speaker':<20}{'F1':>8}{'accuracy':>10}{'labels':>9}{'speaking':>10}{'matched':>9}",
    ]
    for name, counts in result["speakers"].items():
        lines.append(
            f"  {name:<18}{_number(counts['f1']):>8}{_number(counts['accuracy']):>10}{counts['labels']:>9,}"
            f"{counts['speaking']:>10,}{counts['matched']:>9,}"
        )
    return _with_notes(lines, result["notes"])


def _intervals(result: Mapping) -> list[str]:
    """A table of the intervals of `core.evaluation.metrics.intervals`, if the results have them."""
    intervals = result.get("intervals")
    if intervals is None:
        return []
    less = intervals["difference"]
    versus = f"less that of {less['from']}" if less else ""
    lines = [f"{'95 % confidence':<24}{'average precision':>18}{'videos':>9}   {versus}".rstrip()]

    def add(title: str, own: Mapping | None, difference: Mapping | None) -> None:
        videos = own["videos"] if own else "-"
        second = _with_margin(difference, "+.4f") if less else ""
        lines.append(f"  {title:<22}{_with_margin(own, '.4f'):>18}{videos:>9}   {second}".rstrip())

    add("all", intervals["average_precision"], less and less["average_precision"])
    for key, title in GROUP_TITLES.items():
        if intervals.get(key):
            lines.append(title)
        for name, own in (intervals.get(key) or {}).items():
            add(name, own, less and less[key][name])
    return lines


def _with_margin(interval: Mapping | None, form: str) -> str:
    return "-" if interval is None else f"{interval['value']:{form}} ± {interval['margin']:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_notes(lines: list[str], notes: Iterable[str]) -> str:
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])
