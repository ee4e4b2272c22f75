"""How the page of `splitpoint plan --html` looks, on paper-white and on dark screens.

The colours of stages and lines are those of Okabe and Ito ("Color Universal Design", 2008), which
readers with any kind of colour vision tell apart; what is alike in grey differs in its dashes.
"""

from __future__ import annotations

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0; --faint: #eceff2;
  --tint: #e8f1fa; --note: #fff6e0; --grey: #8a939c;
  --blue: #0072b2; --sky: #56b4e9; --orange: #e69f00; --yellow: #f0e442; --green: #009e73;
  --red: #d55e00; --purple: #cc79a7; --plan: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e6e9ed; --soft: #a3adb8; --rule: #39424c; --faint: #252c34;
    --tint: #1b2c3d; --note: #33290f; --grey: #7d8791;
    --blue: #2389cb; --red: #f07d2e; --plan: #56b4e9;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 4px; }
h3 { font-size: 13px; margin: 0 0 2px; color: var(--soft); font-weight: 600; }
section { margin-top: 30px; display: flow-root; }
section > p { margin: 0 0 10px; color: var(--soft); max-width: 78ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.notes { background: var(--note); border-radius: 6px; padding: 8px 12px 8px 30px; margin: 14px 0 0;
  overflow-wrap: anywhere; }
.answer { background: var(--tint); border-left: 5px solid var(--plan); border-radius: 6px;
  padding: 14px 18px; margin-top: 20px; display: flex; flex-wrap: wrap; gap: 10px 48px; }
.answer p { flex: 1 0 100%; color: var(--ink); margin: 0; max-width: none; }
.answer strong { display: block; font-size: 18px; }
.answer ul { margin: 0; padding-left: 18px; }
.answer li { overflow-wrap: anywhere; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 3px 18px; margin: 0 0 30px;
  padding: 0; font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 12px; border-radius: 2px;
  margin-right: 6px; vertical-align: -1px; }
.legend i.plan, .legend i.boundary, .legend i.rival-device, .legend i.rival-input,
.legend i.whisker { width: 24px; height: 0; border-radius: 0; vertical-align: 4px; }
.legend i.plan { border-top: 7px solid var(--plan); opacity: .5; vertical-align: 1px; }
.legend i.boundary { border-top: 1.5px solid var(--grey); }
.legend i.rival-device { border-top: 2.5px dashed var(--red); }
.legend i.rival-input { border-top: 2.5px dotted var(--purple); }
.legend i.whisker { border-top: 1.5px solid var(--ink); }
.legend i.band { background: var(--orange); opacity: .3; }

svg.chart { display: block; overflow: visible; }
svg.at { overflow: visible; }
svg.lines { overflow: hidden; }
.bars { margin: 0 118px 30px 188px; width: calc(100% - 306px); }
.uplink { margin: 52px 62px 46px 58px; width: calc(100% - 120px); }
.bars.layers { margin-right: 60px; width: calc(100% - 248px); }
svg text { font-size: 12px; fill: var(--ink); }
svg .tick, svg .reason, svg text.cut { fill: var(--soft); }
svg .reason { font-size: 11px; }
svg .total { text-anchor: end; }
svg .late { fill: var(--soft); }
svg .total, svg .value { font-variant-numeric: tabular-nums; }
svg .value { font-size: 11px; }
line { stroke-width: 1; shape-rendering: crispEdges; }
.grid { stroke: var(--rule); }
.fine { stroke: var(--faint); }
.axis { stroke: var(--soft); }
.s-edge, .op-0 { fill: var(--blue); background: var(--blue); }
.s-encode, .op-2 { fill: var(--sky); background: var(--sky); }
.s-uplink, .op-1 { fill: var(--orange); background: var(--orange); }
.s-queue, .op-4 { fill: var(--yellow); background: var(--yellow); }
.s-cloud, .op-3 { fill: var(--green); background: var(--green); }
.s-downlink { fill: var(--purple); background: var(--purple); }
.op-5 { fill: var(--grey); background: var(--grey); }
.bar { stroke: var(--paper); stroke-width: .6; }
.whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.break { stroke: var(--paper); stroke-width: 3; fill: none; }
.out .bar, .out .whisker { opacity: .35; }
.out .name, .out .total { fill: var(--soft); }
.best .name, .best .total { font-weight: 700; }
.chosen { fill: var(--plan); }
.chosen-row { fill: var(--tint); opacity: .6; }
.hit { fill: transparent; }
.row:hover .hit { fill: var(--faint); }
line.cut { stroke: var(--soft); }
line.chosen-cut { stroke: var(--plan); stroke-width: 3; }
svg text.chosen-cut { fill: var(--ink); font-weight: 700; }

polyline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
polyline.boundary { stroke: var(--grey); stroke-width: 1.2; }
polyline.plan { stroke: var(--plan); stroke-width: 8; opacity: .5; }
polyline.rival-device { stroke: var(--red); stroke-width: 2.5; stroke-dasharray: 9 4; }
polyline.rival-input { stroke: var(--purple); stroke-width: 2.5; stroke-dasharray: 2.5 3; }
.leader { stroke: var(--grey); stroke-width: 1; fill: none; }
.planned { stroke: var(--ink); stroke-width: 1.5; }
.planned-name { font-weight: 600; }
rect.band { fill: var(--orange); opacity: .16; }
.even { stroke: var(--soft); stroke-dasharray: 3 4; }
.strip { opacity: .3; stroke: var(--paper); stroke-width: 2; }
.strip.plan { fill: var(--plan); }
.strip.rival-device { fill: var(--red); }
.strip.rival-input { fill: var(--purple); }
.strip.nobody { fill: var(--grey); opacity: .15; }

details { margin: 6px 0 0; }
summary { cursor: pointer; margin-bottom: 34px; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 9px; border-bottom: 1px solid var(--faint);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; border-bottom-color: var(--rule);
  white-space: normal; }
.words { text-align: left; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); }
tr.best td { font-weight: 700; background: var(--tint); }
tr.out td { color: var(--soft); }
.narrow { display: none; }
@media (max-width: 700px) {
  main { padding: 18px 14px 40px; }
  .wide { display: none; }
  .narrow { display: inline; }
  text.name.narrow { font-size: 11px; }
  .bars { margin-left: 92px; margin-right: 58px; width: calc(100% - 150px); }
  .bars.layers { margin-right: 44px; width: calc(100% - 136px); }
  .uplink { margin-left: 44px; margin-right: 50px; width: calc(100% - 94px); }
}
@media print { section { break-inside: avoid-page; } }
"""
