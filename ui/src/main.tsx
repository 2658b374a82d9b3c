/** Where the page begins. */
import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "@mantine/spotlight/styles.css";
import "./app/page.css";
import { createRoot } from "react-dom/client";
import { App } from "./app/app";
import { shareNonce } from "./app/theme";
import { connect } from "./lib/live";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
shareNonce();
connect();
createRoot(root).render(<App />);
