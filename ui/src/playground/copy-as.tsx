/** The question of now, steering included, as code for another program. */
import { Code, Modal, Stack, Tabs, Button } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconCode } from "@tabler/icons-react";
import { Copy } from "@/components/copy";
import { snippet, type Language, type Shown } from "./snippets";

const LANGUAGES: readonly Language[] = ["curl", "Python", "JavaScript"];

export function CopyAs({ shown }: { shown: Shown }) {
  const [isOpen, { open, close }] = useDisclosure(false);
  return (
    <>
      <Button variant="default" onClick={open} leftSection={<IconCode size={16} aria-hidden />}>
        Copy as code
      </Button>
      <Modal opened={isOpen} onClose={close} title="The steered question as code" size="lg">
        <Tabs defaultValue="curl">
          <Tabs.List>
            {LANGUAGES.map((language) => (
              <Tabs.Tab key={language} value={language}>
                {language}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          {LANGUAGES.map((language) => (
            <Tabs.Panel key={language} value={language} pt="sm">
              <Stack gap="xs" align="flex-start">
                <Code block w="100%" tabIndex={0}>
                  {snippet(language, shown)}
                </Code>
                <Copy text={snippet(language, shown)} />
              </Stack>
            </Tabs.Panel>
          ))}
        </Tabs>
      </Modal>
    </>
  );
}
