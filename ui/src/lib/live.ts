/** The one websocket: what happens on the server updates the query cache; activations go to those who listen here. */
import { WebSocket as Socket } from "partysocket";
import { useSyncExternalStore } from "react";
import { api, told, type Schemas } from "./api";
import { apiKey } from "./key";
import { client, jobs, status, steering } from "./queries";

export type Event =
  | ({ type: "hello" } & Schemas["Hello"])
  | ({ type: "activations" } & Schemas["Activations"])
  | ({ type: "request" } & Schemas["RequestEnded"])
  | ({ type: "steering" } & Schemas["SteeringChanged"])
  | ({ type: "status" } & Schemas["StatusChanged"])
  | ({ type: "progress" } & Schemas["ChangeProgress"])
  | ({ type: "job" } & Schemas["JobChanged"])
  | ({ type: "library" } & Schemas["LibraryChanged"])
  | ({ type: "profiles" } & Schemas["ProfilesChanged"])
  | ({ type: "dropped" } & Schemas["Dropped"]);

export type Connection = "connecting" | "open" | "lost";

type Listener = (events: readonly Event[]) => void;
const listeners = new Set<Listener>();
const watchers = new Set<() => void>();
let connection: Connection = "connecting";

/** Everything that happens from now on, a frame (at most 20 a second) at a time; → how to stop listening. */
export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const useConnection = (): Connection =>
  useSyncExternalStore(
    (watcher) => {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    () => connection,
  );

/** Connects, and connects again whenever the server comes back; → how to close for good. */
export function connect(): () => void {
  const socket = new Socket(address, [], { maxReconnectionDelay: 4000, minReconnectionDelay: 300 });
  socket.onopen = () => became("open");
  socket.onclose = () => became("lost");
  socket.onmessage = (message: MessageEvent<string>) => take(JSON.parse(message.data) as Event[]);
  return () => socket.close();
}

async function address(): Promise<string> {
  const root = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/events`;
  if (!apiKey()) return root;
  const { ticket } = (await told(api.POST("/api/ws-ticket"))) as { ticket: string };
  return `${root}?ticket=${encodeURIComponent(ticket)}`;
}

function became(next: Connection): void {
  connection = next;
  for (const watcher of watchers) watcher();
}

function take(events: Event[]): void {
  for (const event of events) heard(event);
  for (const listener of listeners) listener(events);
}

/** What the cache learns from an event: a change itself where the event has it, else what is out of date. */
function heard(event: Event): void {
  switch (event.type) {
    case "hello":
      return void client.invalidateQueries(); // whatever happened while nobody listened
    case "status":
      return outdated("status", "steering", "monitor", "models", "saes", "profiles", "hardware");
    case "progress":
      return progressed(event);
    case "steering":
      if (client.getQueryData(steering.queryKey)?.version !== event.version) outdated("steering");
      return outdated("status", "profiles");
    case "job":
      client.setQueryData(jobs.queryKey, (all) => all && [event.job, ...all.filter((job) => job.id !== event.job.id)]);
      return;
    case "library":
      return outdated("models", "saes", "jobs", "registry", "labels", "feature");
    case "profiles":
      return outdated("profiles", "profile", "monitor");
    case "request":
      return outdated("requests", "status", "statistics");
    case "dropped":
      return outdated("requests", "steering", "status", "jobs");
  }
}

function progressed({ what, stage, done, total }: Schemas["ChangeProgress"]): void {
  client.setQueryData(status.queryKey, (now) =>
    now?.changing?.name === what ? { ...now, changing: { ...now.changing, stage, done, total } } : now,
  );
}

function outdated(...names: string[]): void {
  for (const name of names) void client.invalidateQueries({ queryKey: [name] });
}
