/** What was said in a request: the prompt as the model read it, the answer, and the request as a command. */
import { Accordion, Code, Stack, Text } from "@mantine/core";
import { Copy } from "@/components/copy";
import type { Schemas } from "@/lib/api";
import { curlOf } from "@/lib/curl";

type Told = Omit<Schemas["RequestDetail"], "activations">;

export function Words({ told }: { told: Told }) {
  const { prompts, answers, body, request } = told;
  return (
    <Stack gap="xs" component="section" aria-label="What was said">
      {body === null ? (
        <Text size="sm">
          Its prompt and its body were not kept: with MILLM_HISTORY_TEXTS=all they are, in memory alone, and a request
          can be sent again.
        </Text>
      ) : (
        <Copy text={curlOf(location.origin, request.endpoint, body)} label="Copy as curl" />
      )}
      <Accordion variant="separated" multiple order={2}>
        <Part name="Prompt, as the model read it" texts={prompts} />
        <Part name="Answer" texts={answers} />
      </Accordion>
    </Stack>
  );
}

const Part = ({ name, texts }: { name: string; texts: readonly string[] | null }) =>
  texts && texts.length > 0 ? (
    <Accordion.Item value={name}>
      <Accordion.Control>{name}</Accordion.Control>
      <Accordion.Panel>
        <Stack gap="xs">
          {texts.map((text, at) => (
            <Code key={at} block tabIndex={0} mah={360} style={{ overflow: "auto", whiteSpace: "pre-wrap" }}>
              {text}
            </Code>
          ))}
        </Stack>
      </Accordion.Panel>
    </Accordion.Item>
  ) : null;
