/** What is around every page: the header, the menu, and word of a lost connection. */
import { AppShell, Burger, Group, NavLink } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Link, Outlet, useLocation } from "@tanstack/react-router";
import { Banner } from "./banner";
import { Header } from "./header";
import { PLACES } from "./places";

export function Shell() {
  const [isOpen, { toggle, close }] = useDisclosure(false);
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 190, breakpoint: "sm", collapsed: { mobile: !isOpen } }}
      padding="md"
    >
      <AppShell.Header>
        <a href="#main" className="skip-link">
          To the page
        </a>
        <Group h="100%" px="sm" gap="sm" wrap="nowrap">
          <Burger opened={isOpen} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
          <Header />
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" aria-label="Pages">
        <Menu onChosen={close} />
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1}>
        <Banner />
        <Outlet />
      </AppShell.Main>
    </AppShell>
  );
}

function Menu({ onChosen }: { onChosen: () => void }) {
  const here = useLocation({ select: ({ pathname }) => pathname });
  return PLACES.map(({ to, label, icon: Icon }) => (
    <NavLink
      key={to}
      component={Link}
      to={to}
      label={label}
      active={here === to}
      aria-current={here === to ? "page" : undefined}
      leftSection={<Icon size={18} aria-hidden />}
      onClick={onChosen}
    />
  ));
}
