"""How quickly the page is there, and how quickly it answers: what a browser measures.

Eight classes and six rows. ``ready`` is the time from when the file is there to the first complete
state, ``answer`` the time that scripts and layout take for a change of a logit; 60 frames a second
leave 16.7 ms for it. Medians; written to benchmarks/results/page.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

import xent
from xent.benchmark.machine import machine

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

import browser  # noqa: E402  # the folder of the tests is no package

VISITS = 15
ANSWERS = """async () => {
  const slider = document.querySelector("[role=slider]");
  const times = [];
  for (let i = 0; i < 60; i += 1) {
    const key = i % 2 ? "ArrowUp" : "ArrowDown";
    slider.dispatchEvent(new KeyboardEvent("keydown", { key }));
    const begun = await new Promise(requestAnimationFrame);
    document.body.offsetHeight; // layout
    times.push(performance.now() - begun);
  }
  return times;
}"""
READY = """() => performance.getEntriesByName("ready")[0].startTime
  - performance.getEntriesByType("navigation")[0].responseEnd"""


def measured() -> dict[str, float | int]:
    """Medians over several visits, in ms."""
    torch.manual_seed(0)
    html = xent.explain(torch.randn(6, 8), torch.arange(6)).to_html()
    ready, answers = [], []
    with browser.started() as chromium:
        for _ in range(VISITS):
            visit = browser.visit(chromium, html)
            ready.append(visit.page.evaluate(READY))
            visit.page.click(".guess .quiet")
            answers += visit.page.evaluate(ANSWERS)
            visit.context.close()
    return {
        "bytes": len(html.encode()),
        "visits": VISITS,
        "ready_ms": round(median(ready), 1),
        "answer_ms": round(median(answers), 2),
        "answer_ms_95": round(sorted(answers)[int(0.95 * len(answers))], 2),
    }


def main() -> None:
    """Measures, writes and prints."""
    result = {**measured(), "machine": asdict(machine())}
    path = ROOT / "benchmarks" / "results" / "page.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
