"use strict";
// Draws the charts of the page with uPlot from the data in #data. Everything it says is also in the tables below each
// chart; without this script the page loses pictures, no number.
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const three = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  const say = {
    us: (v) => (v < 1e3 ? `${three(v)} µs` : v < 1e6 ? `${three(v / 1e3)} ms` : `${three(v / 1e6)} s`),
    bytes: (v) => `${three(v / 1048576)} MiB`,
    share: (v) => `${three(v * 100)} %`,
    number: three,
  };
  const nines = (v) => `${(100 - 100 / v).toFixed(Math.max(0, Math.ceil(Math.log10(v) - 1e-6) - 2))} %`;
  const seconds = (v) => `${three(v)} s`;
  const powers = (low, high) => {
    const found = [];
    for (let p = Math.ceil(Math.log10(low) - 1e-6); p <= Math.log10(high) + 1e-6; p++) found.push(10 ** p);
    return found;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const height = (width) => (width < 480 ? 210 : 270);

  // Marks of incidents, bands of stalls, the budget at 99 %.
  const extras = (chart) => (u) => {
    const { ctx, bbox } = u;
    const x = (value) => u.valToPos(value, "x", true);
    const inside = (value) => value >= u.scales.x.min && value <= u.scales.x.max;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--wrong");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.font = `600 ${12 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    for (const [begin, end] of chart.bands || []) {
      if (!inside(begin)) continue;
      ctx.globalAlpha = 0.35;
      ctx.fillRect(x(begin), bbox.top, Math.max(2, x(Math.min(end, u.scales.x.max)) - x(begin)), bbox.height);
      ctx.globalAlpha = 1;
    }
    ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    const stroke = (...points) => {
      ctx.beginPath();
      points.forEach(([px, py], n) => (n ? ctx.lineTo(px, py) : ctx.moveTo(px, py)));
      ctx.stroke();
    };
    for (const [at, name] of chart.marks || []) {
      if (!inside(at)) continue;
      stroke([x(at), bbox.top], [x(at), bbox.top + bbox.height]);
      ctx.fillText(name, x(at), bbox.top - 3 * devicePixelRatio);
    }
    if (chart.budget && u.scales.x.max >= 100) {
      const level = u.valToPos(chart.budget, "y", true);
      stroke([x(50), level], [x(Math.min(200, u.scales.x.max)), level]);
      ctx.textAlign = "right";
      ctx.fillText("budget", x(50) - 4 * devicePixelRatio, level + 4 * devicePixelRatio);
    }
    ctx.restore();
  };

  const options = (chart, width) => {
    const told = say[chart.unit];
    const sayX = chart.x === "nines" ? nines : seconds;
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
    const known = chart.lines.flatMap((line) => line.values).filter((v) => v > 0);
    if (chart.budget) known.push(chart.budget);
    const low = 10 ** Math.floor(Math.log10(Math.min(...known)));
    const high = Math.max(low * 10, 10 ** Math.ceil(Math.log10(Math.max(...known))));
    const top = Math.max(...known, 0) * 1.05 || 1;
    return {
      width,
      height: height(width),
      padding: [14, 26, 0, 0],
      cursor: chart.x === "seconds" ? { sync: { key: "seconds" } } : {},
      scales: {
        x: chart.x === "nines" ? { time: false, distr: 3, log: 10 } : { time: false },
        y: chart.log ? { distr: 3, log: 10, range: () => [low, high] } : { range: () => [0, top] },
      },
      axes: [
        {
          ...axis,
          space: 56,
          size: 32,
          values: (u, at) => at.map((v) => (v == null ? "" : sayX(v))),
          ...(chart.x === "nines" && {
            splits: (u, _, min, max) => [1, 2, ...powers(10, 1e6)].filter((v) => v >= min && v <= max),
          }),
        },
        {
          ...axis,
          size: 66,
          values: (u, at) => at.map((v) => (v == null ? "" : told(v))),
          ...(chart.unit === "bytes" && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3].map((n) => n * 1048576) }),
          ...(chart.log && { splits: () => powers(low, high) }),
        },
      ],
      series: [
        { label: chart.x === "nines" ? "percentile" : "at", value: (u, v) => (v == null ? "–" : sayX(v)) },
        ...chart.lines.map((line) => ({
          label: line.name,
          stroke: colour(`--s${line.colour}`),
          width: 2,
          points: { show: false },
          dash: line.dashed ? [6, 4] : undefined,
          paths: chart.step ? uPlot.paths.stepped({ align: 1 }) : undefined,
          value: (u, v) => (v == null ? "–" : told(v)),
        })),
      ],
      hooks: { draw: [extras(chart)] },
    };
  };

  // Arrow keys move the cursor; what stands under it is read out.
  const steer = (box, chart, plot) => (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const u = plot();
    const last = chart.at.length - 1;
    const at = Math.min(last, Math.max(0, (u.cursor.idx ?? (step > 0 ? -1 : last + 1)) + step));
    u.setCursor({ left: u.valToPos(chart.at[at], "x"), top: u.over.clientHeight / 2 });
    const where = (chart.x === "nines" ? nines : seconds)(chart.at[at]);
    const values = chart.lines.map((l) => `${l.name} ${l.values[at] == null ? "none" : say[chart.unit](l.values[at])}`);
    box.parentElement.querySelector(".said").textContent = `${where}: ${values.join(", ")}`;
  };

  const redraws = [];
  for (const chart of charts) {
    const box = document.getElementById(`chart-${chart.id}`);
    const data = [chart.at, ...chart.lines.map((line) => line.values)];
    let plot = null;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(options(chart, box.clientWidth), data, box);
    };
    draw();
    redraws.push(draw);
    box.addEventListener("keydown", steer(box, chart, () => plot));
    new ResizeObserver(() => {
      const width = box.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: height(width) });
    }).observe(box);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((draw) => draw()));
  document.documentElement.dataset.charts = charts.length;
})();
