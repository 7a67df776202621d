// Draws the charts: each element with data-chart has {times, series}. The tables beside them have the same figures.
"use strict";
(() => {
  const drawn = new Map();
  const colours = ["--line1", "--line2", "--line3", "--line4", "--line5", "--line6"];

  function draw(element) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const {times, series} = JSON.parse(element.dataset.chart);
    // Where no pointer is, the legend has the last minute's figures.
    const valueAt = (plot, value, series) => value ?? plot.data[series].at(-1);
    const axis = {stroke: colour("--text"), grid: {stroke: colour("--edge"), width: 1}, ticks: {stroke: colour("--edge"), width: 1}};
    const options = {
      width: element.clientWidth,
      height: 220,
      series: [
        {label: "time (UTC)", value: (plot, time) => new Date(valueAt(plot, time, 0) * 1000).toISOString().slice(0, 16).replace("T", " ")},
        ...Object.keys(series).map((name, number) => ({
          label: name,
          stroke: colour(name === "rejected" ? "--bad" : colours[number % colours.length]),
          width: 2,
          points: {show: false},
          dash: name === "rejected" ? [6, 4] : undefined,
          value: (plot, value, series) => `${valueAt(plot, value, series).toLocaleString("en", {maximumSignificantDigits: 3})} ${element.dataset.unit}`,
        })),
      ],
      axes: [{...axis, values: (_, times) => times.map((at) => new Date(at * 1000).toISOString().slice(11, 16))}, {...axis, size: 70}],
      scales: {y: {range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1]}},
    };
    element.replaceChildren();
    drawn.set(element, new uPlot(options, [times, ...Object.values(series)], element));
  }

  function drawAll() {
    for (const element of drawn.keys()) {
      if (!element.isConnected) {
        drawn.get(element).destroy();
        drawn.delete(element);
      }
    }
    document.querySelectorAll("[data-chart]").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:afterSettle", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => drawn.forEach((plot, element) => plot.setSize({width: element.clientWidth, height: 220})));
})();
