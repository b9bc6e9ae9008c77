"""How the page of a trace looks: by day and by night, on a telephone and on a wide screen, on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --card: #ffffff; --ink: #1f2530; --soft: #59616e; --rule: #e4e5e2; --grid: #eeeeeb;
  --good: #2f7f5f; --stream: #2a7d94; --first: #b4d6df; --bad: #b8402f; --unused: #9aa1ab;
  --wait: #a86f14; --line: #7457b5; --mark: #1f6f9f;
  --other: #b9bfc8; --call: #d5d8d9; --focus: #1f6f9f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --card: #1a1e23; --ink: #e4e7ea; --soft: #a0a8b3; --rule: #2b3037; --grid: #23282e;
    --good: #58b88e; --stream: #5cb3cc; --first: #2b5360; --bad: #ee8373; --unused: #6d7681;
  --wait: #d9a548; --line: #a990e0; --mark: #6db8e4;
    --other: #525b66; --call: #3b424b; --focus: #6db8e4;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 84rem; padding: 2.5rem clamp(1rem, 4vw, 3rem) 4rem;
  background: var(--paper); color: var(--ink);
  font: 0.9375rem/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1 { margin: 0; font-size: 1.5rem; font-weight: 600; letter-spacing: -0.01em; }
h2 { margin: 0 0 0.75rem; font-size: 0.9375rem; font-weight: 600; }
h2 span { margin-left: 0.75em; color: var(--soft); font-weight: 400; }
p { margin: 0.25rem 0; color: var(--soft); }
a { color: inherit; text-decoration-color: var(--other); text-underline-offset: 0.2em; }
a:hover { text-decoration-color: currentcolor; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 3px; border-radius: 3px; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; top: 0.5rem; padding: 0.25rem 0.5rem; background: var(--card); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.sums { display: flex; flex-wrap: wrap; gap: 1rem 2.75rem; margin: 1.5rem 0 1.25rem; }
.sums div { display: flex; flex-direction: column-reverse; }
.sums dt { color: var(--soft); font-size: 0.8125rem; }
.sums dd { margin: 0; font-size: 1.375rem; line-height: 1.3; }
.sums .bad dd { color: var(--bad); }
.tools { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 0.75rem 2rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.375rem 1.5rem; margin: 0; padding: 0; list-style: none; color: var(--soft);
  font-size: 0.8125rem; }
.legend svg { width: 1.75rem; height: 0.875rem; margin-right: 0.5rem; vertical-align: -0.125rem; }
.filter { display: inline-flex; align-items: center; gap: 0.5rem; cursor: pointer; }
.filter input { width: 1rem; height: 1rem; margin: 0; accent-color: var(--bad); }
@supports not selector(:has(*)) { .filter { display: none; } }
body:has(#only-failed:checked) :is(.trace, .call):not(.failed) { display: none; }
.trace { margin-top: 1.5rem; padding: 1.25rem 1.5rem 1rem; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0; text-align: left; font-weight: 400; vertical-align: middle; unicode-bidi: isolate; }
.waterfall { table-layout: fixed; }
.waterfall .what { width: 31%; padding-right: 1.25rem; }
.waterfall .took { width: 5.75rem; padding-left: 1rem; text-align: right; white-space: nowrap; }
.waterfall .came { width: 11rem; padding-left: 1.25rem; }
.waterfall .took, .head .when, .part.faint .what { color: var(--soft); }
.call + .call .head > * { padding-top: 0.875rem; }
.head .what { font-weight: 600; }
.good .came { color: var(--good); }
.bad .came { color: var(--bad); }
.came small { color: var(--soft); font-size: 0.8125rem; margin-left: 0.5em; }
.d1 .what { padding-left: 1.375rem; } .d2 .what { padding-left: 2.5rem; } .d3 .what { padding-left: 3.5rem; }
.d4 .what { padding-left: 4.5rem; } .d5 .what { padding-left: 5rem; }
.facts td { padding: 0 0 0.375rem 1.375rem; color: var(--soft); font-size: 0.8125rem; }
.facts ul { display: inline; margin: 0; padding: 0; list-style: none; }
.facts li { display: inline; }
.facts li + li::before { content: "\\00a0· "; }
details { display: inline; }
summary { display: inline; white-space: nowrap; margin-left: 0.75em; cursor: pointer; list-style: none;
  text-decoration: underline; text-decoration-color: var(--other); text-underline-offset: 0.2em; }
ul:empty + details summary { margin-left: 0; }
summary::-webkit-details-marker { display: none; }
summary:hover { color: var(--ink); }
details dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.125rem 1.25rem; margin: 0.5rem 0 0.5rem; }
details dd { margin: 0; color: var(--ink); }
.bars { display: block; width: 100%; height: 1.625rem; overflow: visible; }
.axis .bars { height: 1rem; }
.axis text { fill: var(--soft); font-size: 0.75rem; }
.grid { stroke: var(--grid); }
.work { fill: var(--good); }
.stream { fill: var(--stream); }
.first { fill: var(--first); }
.bad .work, .bad .first, .bad .stream { fill: var(--bad); }
.faint .work, .faint .first, .faint .stream { fill: var(--unused); }
.bars .call { fill: var(--call); }
.other { fill: var(--other); }
.bad .other { fill: var(--bad); }
.retry { stroke: var(--wait); stroke-width: 2; stroke-dasharray: 2 4; }
.line { stroke: var(--line); stroke-width: 2; stroke-dasharray: 7 3; }
.mark { fill: var(--mark); }
.list { margin-top: 1.75rem; }
.list summary { margin: 0; }
.list details { display: block; }
.list table { margin-top: 0.75rem; font-size: 0.8125rem; }
.list th, .list td { padding: 0.1875rem 1rem 0.1875rem 0; border-top: 1px solid var(--rule); vertical-align: top; }
.list thead th { border: 0; color: var(--soft); }
.list .number { text-align: right; white-space: nowrap; }
@media (max-width: 46rem) {
  body { padding-top: 1.5rem; }
  .trace { padding: 1rem; }
  h2 span { display: block; margin-left: 0; }
  .waterfall, .waterfall tbody { display: block; }
  .waterfall tr { display: grid; grid-template-columns: minmax(45%, 1fr) minmax(0, max-content) auto;
    align-items: baseline; }
  .waterfall thead { display: block; }
  .waterfall thead th:not(.time) { position: absolute; }
  .waterfall .what, .waterfall .took, .waterfall .came { width: auto; }
  .waterfall .took { order: 2; padding-left: 0.75rem; }
  .waterfall .came { order: 1; padding-left: 0.75rem; text-align: right; }
  .waterfall .came small { display: none; }
  .waterfall .time { order: 3; grid-column: 1 / -1; }
  .waterfall .facts td { grid-column: 1 / -1; }
  .waterfall .bars { height: 1.125rem; margin-bottom: 0.375rem; }
  .waterfall .axis .bars { margin: 0; }
  .list { overflow-x: auto; }
  .list .wide { display: none; }
}
@media print {
  body { max-width: none; padding: 0; }
  .trace { break-inside: avoid; }
  .filter, .skip { display: none; }
}
@media (forced-colors: active) {
  .bars { forced-color-adjust: none; }
}
"""
