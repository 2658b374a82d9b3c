/** What watched features do, as it happens: the last activations of each, published at most 30 times a second. */
import { useSyncExternalStore } from "react";
import type { Schemas } from "./api";
import { listen, type Event } from "./live";

export interface Sample {
  request: string;
  position: number;
  token: string;
  /** As told first: before steering, unless only what is after it is watched. */
  value: number;
  after: number | null;
}

/** As many tokens as a chart shows. */
export const KEPT = 240;
const FRAME = 1000 / 30;
const NONE: readonly Sample[] = [];

const shown = new Map<string, readonly Sample[]>();
const coming = new Map<string, Sample[]>();
const watchers = new Set<() => void>();
let isPaused = false;
let isAsked = false;
let last = 0;

const keyOf = (sae: string, index: number) => `${index} ${sae}`;

/** An event's activations, feature by feature. */
export function samplesOf(event: Schemas["Activations"]): [string, Sample][] {
  return event.features.map((feature, at) => [
    keyOf(event.sae, feature),
    {
      request: event.request_id,
      position: event.position,
      token: event.token,
      value: event.values[at]!,
      after: event.after?.[at] ?? null,
    },
  ]);
}

/** The newest of both, the oldest forgotten. */
export const kept = <T>(before: readonly T[], next: readonly T[]): readonly T[] => [...before, ...next].slice(-KEPT);

function take(events: readonly Event[]): void {
  for (const event of events)
    if (event.type === "activations")
      for (const [key, sample] of samplesOf(event)) coming.set(key, [...kept(coming.get(key) ?? NONE, [sample])]);
  ask();
}

function ask(): void {
  if (isAsked || isPaused || coming.size === 0) return;
  isAsked = true;
  requestAnimationFrame(frame);
}

function frame(now: number): void {
  if (!isPaused && now - last < FRAME) return void requestAnimationFrame(frame);
  isAsked = false;
  if (isPaused) return;
  last = now;
  for (const [key, samples] of coming) shown.set(key, kept(shown.get(key) ?? NONE, samples));
  coming.clear();
  for (const watcher of watchers) watcher();
}

listen(take);

function subscribe(watcher: () => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** The last activations of a feature, the oldest first. */
export const useTrace = (sae: string, index: number): readonly Sample[] =>
  useSyncExternalStore(subscribe, () => shown.get(keyOf(sae, index)) ?? NONE);

export const usePaused = (): boolean => useSyncExternalStore(subscribe, () => isPaused);

/** What comes meanwhile is kept, and shown when it goes on. */
export function pause(paused: boolean): void {
  isPaused = paused;
  for (const watcher of watchers) watcher();
  ask();
}
