// The report's style sheet.
#pragma once

namespace boss::client {

inline constexpr char kReportStyle[] = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f7f8fa; --text: #1b1f27; --muted: #667085; --rule: #e2e5eb; --best: #e3f4ea;
  --c0: #2f66d0; --c1: #d96a1d; --c2: #1f9468; --c3: #8a53c8; --c4: #c4375c; --c5: #5c6b7f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151b; --card: #1a1e26; --text: #e6e9ef; --muted: #98a2b3; --rule: #2c323d; --best: #17382a;
    --c0: #7aa5ff; --c1: #ff9d57; --c2: #4cc795; --c3: #bb90f2; --c4: #f47b9a; --c5: #a5b1c2;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 56px 28px 72px; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 60px 0 6px; padding-top: 22px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 26px 0 8px; }
p { margin: 0 0 14px; max-width: 74ch; }
.lead, .note, figcaption, footer { color: var(--muted); }
.lead { font-size: 1.05rem; }
.note, figcaption { font-size: 0.9rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 28px 0 0; }
.fact { background: var(--card); border-radius: 10px; padding: 13px 16px; }
.fact span { display: block; color: var(--muted); font-size: 0.82rem; }
.fact b { font-size: 1.14rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 18px 0 0; }
.narrow { max-width: 760px; }
figcaption { margin-top: 8px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px 28px; }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 22px; }
.grids .wide { grid-column: span 2; }
.grids img { width: 100%; image-rendering: pixelated; border-radius: 6px; border: 1px solid var(--rule); background: #fff; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: 14px; font-size: 0.94rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 0.82rem; padding: 6px 12px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td { padding: 7px 12px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
.number { text-align: right; }
td.best { background: var(--best); font-weight: 650; }
tr.group td { border-top: 2px solid var(--rule); }
footer { margin-top: 64px; padding-top: 18px; border-top: 1px solid var(--rule); font-size: 0.86rem; }
svg { width: 100%; height: auto; display: block; font-size: 13px; }
svg text { fill: var(--text); font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.muted { fill: var(--muted); }
svg text.title { fill: var(--muted); font-size: 13px; }
svg text.strong { font-weight: 600; font-size: 14px; }
svg .c0 { color: var(--c0); } svg .c1 { color: var(--c1); } svg .c2 { color: var(--c2); }
svg .c3 { color: var(--c3); } svg .c4 { color: var(--c4); } svg .c5 { color: var(--c5); }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.dashed { stroke-dasharray: 6 4; stroke-linecap: butt; }
svg .line.dotted { stroke-dasharray: 0.1 4.5; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .faint { stroke-width: 1; opacity: 0.35; }
svg .pixels { image-rendering: pixelated; }
svg .dot { fill: currentColor; }
svg .dot.dashed, svg .dot.dotted { fill: var(--page); stroke: currentColor; stroke-width: 1.8; }
svg .dot.hollow { fill: var(--page); stroke: var(--muted); stroke-width: 1.8; }
svg .dot.ringed { stroke: #fff; stroke-width: 1.4; }
@media print { main { padding: 0; max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
)css";

}  // namespace boss::client
