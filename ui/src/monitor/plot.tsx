/** A line of activations on a canvas: before steering, and after it where that is told. */
import { useComputedColorScheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { KEPT, type Sample } from "@/lib/activity";
import { short } from "@/lib/numbers";
import { pointsOf } from "./points";

const HEIGHT = 150;

export function Plot({ samples, name }: { samples: readonly Sample[]; name: string }) {
  const { ref, width } = useElementSize<HTMLDivElement>();
  const host = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme("light");
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    if (!host.current || !width) return;
    const made = new uPlot(options(width), [[], [], []], host.current);
    plot.current = made;
    return () => {
      plot.current = null;
      made.destroy();
    };
  }, [width, scheme]);
  useEffect(() => plot.current?.setData(pointsOf(samples)), [samples, width, scheme]);
  return (
    <div ref={ref} role="img" aria-label={described(samples, name)} style={{ height: HEIGHT }}>
      <div ref={host} />
    </div>
  );
}

const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name);

function options(width: number): uPlot.Options {
  const axis = { stroke: colour("--mantine-color-text"), grid: { show: false }, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: (_, __, most) => [Math.max(0, most - KEPT), Math.max(most, 20)] },
      y: { range },
    },
    axes: [
      { ...axis, show: false },
      { ...axis, size: 48 },
    ],
    series: [
      {},
      { stroke: colour("--millm-before"), width: 1.5, points: { show: false } },
      { stroke: colour("--millm-after"), width: 1.5, dash: [4, 3], points: { show: false } },
    ],
  };
}

const range = (_: uPlot, least: number, most: number): uPlot.Range.MinMax => [
  Math.min(0, least || 0),
  Math.max(1, 1.05 * (most || 0)),
];

function described(samples: readonly Sample[], name: string): string {
  const last = samples.at(-1);
  if (!last) return `Activations of ${name}: none yet`;
  const after = last.after === null ? "" : `, ${short(last.after)} after steering (dashed)`;
  return `Activations of ${name}, token by token: ${short(last.value)} now${after}`;
}
