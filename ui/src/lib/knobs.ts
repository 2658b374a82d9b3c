/** Turning knobs and choosing what is watched: the server changes, and its answer is what the page shows next. */
import { useMutation, useQuery } from "@tanstack/react-query";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "./api";
import { asFailure } from "./failure";
import { client, feature, monitor, steering } from "./queries";

export type Knob = Schemas["SteeredFeature"];
type Change = Omit<Schemas["SteeringChange"], "version">;

/** One change after another, each on the version that the last one made. */
const scope = { id: "steering" };

const version = () => client.getQueryData(steering.queryKey)?.version;

function changed(state: Schemas["SteeringState"]): void {
  client.setQueryData(steering.queryKey, state);
}

/** Another tab or client was quicker: what is true now is shown, and nothing was overwritten. */
function refused(thrown: unknown): void {
  const isOutdated = asFailure(thrown).code === "steering_outdated";
  if (isOutdated) said("The steering was changed elsewhere. This is how it is now; turn again if you still want to.");
  else failed(thrown);
  void client.invalidateQueries({ queryKey: steering.queryKey });
}

export const useTurn = () =>
  useMutation({
    scope,
    mutationFn: (change: Change) => told(api.PATCH("/api/steering", { body: { ...change, version: version() } })),
    onSuccess: changed,
    onError: refused,
  });

export const useUndo = (way: "undo" | "redo") =>
  useMutation({
    scope,
    mutationFn: () => told(api.POST(`/api/steering/${way}`, { body: { version: version() } })),
    onSuccess: changed,
    onError: refused,
  });

export const useClear = () =>
  useMutation({
    scope,
    mutationFn: () => told(api.PUT("/api/steering", { body: { features: [], version: version() } })),
    onSuccess: changed,
    onError: refused,
  });

/** Adds a knob at a strength to begin with: half the feature's maximum where it is known, else half the usual norm. */
export function useSteer() {
  const turn = useTurn();
  return async (sae: string, index: number): Promise<void> => {
    try {
      const { strengths, label } = await client.fetchQuery(feature(sae, index));
      const strength = strengths.half_max_act ?? strengths.half_norm;
      turn.mutate({ features: [{ sae, index, strength: Number(strength.toPrecision(3)), unit: "raw", label }] });
    } catch (thrown) {
      failed(thrown);
    }
  };
}

/** Whether features are watched, and how to change that. */
export function useWatch() {
  const { data } = useQuery(monitor);
  const save = useMutation({
    mutationFn: (watch: Schemas["WatchState"][]) =>
      told(
        api.PUT("/api/monitor", {
          body: { on: true, follow_profile: data?.follow_profile, watch: watch.map(asAsked) },
        }),
      ),
    onSuccess: (state) => client.setQueryData(monitor.queryKey, state),
    onError: failed,
  });
  const isWatched = (sae: string, index: number): boolean =>
    data?.watch.some((watch) => watch.sae === sae && watch.features.includes(index)) ?? false;
  const toggle = (sae: string, index: number) => data && save.mutate(toggled(data.watch, sae, index));
  return { isWatched, toggle, isPending: save.isPending };
}

export const asAsked = ({ sae, features, top_k, tokens, when, sample_every }: Schemas["WatchState"]) => ({
  sae,
  features,
  top_k,
  tokens,
  when,
  ...(sample_every === null ? {} : { sample_every }),
});

/** The list with a feature added or taken away; an SAE of which nothing is left is left out. */
export function toggled(all: Schemas["WatchState"][], sae: string, index: number): Schemas["WatchState"][] {
  const there = all.find((watch) => watch.sae === sae);
  if (!there)
    return [
      ...all,
      { sae, features: [index], top_k: 0, tokens: "all", when: "before", sample_every: null, active: true },
    ];
  const features = there.features.includes(index)
    ? there.features.filter((other) => other !== index)
    : [...there.features, index];
  const next = all.map((watch) => (watch === there ? { ...watch, features } : watch));
  return next.filter((watch) => watch.features.length > 0 || watch.top_k > 0);
}
