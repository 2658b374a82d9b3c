/** The playground: one question, the base model's answer and the steered one beside it, with one seed. */
import { Button, Group, Stack, Switch, Text, Textarea } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { profiles, status, steering } from "@/lib/queries";
import type { Sampling } from "./asking";
import { Composer } from "./composer";
import { messages, useConversation, type Column, type Turn } from "./conversation";
import { CopyAs } from "./copy-as";
import { Prompts } from "./prompts";
import { activeSteering, KNOBS, preselected, SteerWith } from "./steer-with";
import { BASE, PROMPTED, STEERED, Turns } from "./turns";

const BEGIN = "Tell me about the sea.";
const SAMPLING: Sampling = { seed: 16, temperature: 0.5, max_tokens: 128 };

export function PlaygroundPage() {
  const [server, state, known] = [useQuery(status), useQuery(steering), useQuery(profiles())];
  const failed = [server, state, known].find(({ error }) => error);
  return (
    <Page title="Playground">
      {failed ? (
        <Failed thrown={failed.error} retry={() => void failed.refetch()} />
      ) : server.data && state.data && known.data ? (
        <Ready status={server.data} state={state.data} profiles={known.data.profiles} />
      ) : (
        <Loading />
      )}
    </Page>
  );
}

interface ReadyProps {
  status: Schemas["ServerStatus"];
  state: Schemas["SteeringState"];
  profiles: readonly Schemas["ProfileEntry"][];
}

function Ready({ status, state, profiles }: ReadyProps) {
  const fitting = profiles.filter(({ misfit }) => misfit === null);
  const [draft, setDraft] = useState(BEGIN);
  const [sampling, setSampling] = useState(SAMPLING);
  const [wanted, choose] = useState<string | null>(null);
  const [system, setSystem] = useState<string | null>(null);
  const [showsDifference, setShowsDifference] = useState(false);
  const conversation = useConversation();
  const { turns, isWriting, send, stop, clear } = conversation;

  if (!status.model)
    return (
      <Empty
        title="No model is loaded"
        action={
          <Button component={Link} to="/models">
            Choose a model
          </Button>
        }
      >
        {status.changing ? `${status.changing.name}: ${status.changing.stage}` : "Load one, and ask it here."}
      </Empty>
    );

  const model = status.model.name;
  const isThere = wanted === KNOBS || fitting.some(({ name }) => name === wanted);
  const chosen = wanted !== null && isThere ? wanted : preselected(state, fitting);
  const steered = chosen === KNOBS ? activeSteering(state) : { profile: chosen };
  const columns: Column[] = [
    { name: BASE, steered: { steering: null } },
    { name: STEERED, steered },
  ];
  if (system !== null) columns.push({ name: PROMPTED, steered: { steering: null }, system });
  const asked = { model, columns, sampling };

  const ask = () => {
    if (!draft.trim() || isWriting) return;
    void send({ ...asked, question: draft.trim(), after: turns.at(-1)?.id ?? null });
    setDraft("");
  };
  const retry = ({ question, parent }: Turn) => void send({ ...asked, question, after: parent });
  const edit = ({ question, parent }: Turn) => {
    conversation.goTo(parent);
    setDraft(question);
  };
  const isNothing = chosen === KNOBS && "steering" in steered && steered.steering === null;
  const next = draft.trim() || turns.at(-1)?.question || BEGIN;
  return (
    <Stack gap="md">
      <SteerWith profiles={fitting} chosen={chosen} choose={choose} />
      {isNothing && (
        <Text size="sm" role="status">
          {state.steering ? "Steering is switched off or muted" : "No knob is turned"}: both answers are the base
          model&apos;s.
        </Text>
      )}
      <Turns
        turns={turns}
        all={conversation.all}
        columns={columns.map(({ name }) => name)}
        showsDifference={showsDifference}
        isWriting={isWriting}
        retry={retry}
        edit={edit}
        branch={({ id }) => conversation.goTo(id)}
        show={conversation.show}
      />
      <Prompts profile={chosen === KNOBS ? state.profile : chosen} choose={setDraft} />
      <Composer {...{ draft, setDraft, sampling, setSampling, isWriting, stop }} send={ask} />
      {system !== null && (
        <Textarea
          label="System prompt"
          autosize
          value={system}
          onChange={(event) => setSystem(event.currentTarget.value)}
        />
      )}
      <Group gap="sm">
        <Switch
          label="Mark differences"
          checked={showsDifference}
          onChange={(event) => setShowsDifference(event.currentTarget.checked)}
        />
        <Switch
          label="System prompt instead"
          checked={system !== null}
          onChange={(event) => setSystem(event.currentTarget.checked ? "Answer in capital letters." : null)}
        />
        <CopyAs
          shown={{ origin: location.origin, model, sampling, steered, messages: messages(columns[1]!, turns, next) }}
        />
        {conversation.all.length > 0 && (
          <Button variant="default" onClick={clear}>
            New conversation
          </Button>
        )}
      </Group>
    </Stack>
  );
}
