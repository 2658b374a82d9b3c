// What every JavaScript client does around its own features: take the task from stdin, tell on stdout what was seen.
import { readFileSync, writeSync } from 'node:fs';

export async function tell(features) {
  const { task, features: asked } = JSON.parse(readFileSync(0, 'utf8'));
  const seen = {};
  for (const name of asked) {
    seen[name] = await features[name](task).then(
      (value) => ({ seen: value }),
      (error) => ({ failed: String(error?.stack ?? error) }),
    );
  }
  writeSync(1, JSON.stringify(seen));
  process.exit(0); // some clients keep sockets open for minutes
}

export async function raisedBy(call) {
  try {
    await call();
  } catch (error) {
    return { class: error.constructor.name === 'Error' ? error.name : error.constructor.name, message: error.message };
  }
  return { class: 'nothing was raised', message: '' };
}
