import { exitCodes } from '../src/commands/exit-codes.ts';
import { verbs } from '../src/commands/verbs.ts';

/** `docs/commands.md`: every verb with its options and examples, and the exit codes. */
export function commandReference(): string {
  const parts = [
    `# Commands

<!-- Generated from src/commands by "npm run generate": change it there. -->

Every command takes \`--config FILE\`, \`--json\` (one JSON document on standard output, \`{"ok": true, "command": …, "result": …}\` or
\`{"ok": false, "error": {"kind", "message", "where", "causes", "next"}}\`; logs on standard error), \`--identity FILE\`, \`--passphrase-file FILE\`,
\`--site NAME\`,
\`--log-level LEVEL\`, \`--no-progress\` and \`--help\`. Environment: \`DR_CONFIG\`, \`DR_IDENTITY_FILE\`, \`DR_PASSPHRASE_FILE\` or \`DR_PASSPHRASE\`, \`DR_SITE\`, \`DR_LOG_LEVEL\`, \`NO_COLOR\`.`,
  ];
  for (const verb of verbs) {
    const synopsis = [
      'dr',
      verb.name,
      ...verb.arguments.map(([syntax]) => syntax),
      ...(verb.flags.length > 0 ? ['[options]'] : []),
    ].join(' ');
    const options = [...verb.arguments, ...verb.flags].map(
      ([syntax, description]) => `- \`${syntax}\`: ${description.replace(/<([^>]*)>/g, '`<$1>`')}`,
    );
    const exits = verb.failures.map((kind) => exitCodes[kind].code).join(', ');
    parts.push(
      [
        `## ${synopsis}`,
        `${capital(verb.summary)}. ${verb.description}`,
        ...(options.length > 0 ? [options.join('\n')] : []),
        `\`\`\`sh\n${verb.examples.join('\n')}\n\`\`\``,
        ...(exits === '' ? [] : [`Exit codes of its own: ${exits}.`]),
      ].join('\n\n'),
    );
  }
  const codes = Object.entries(exitCodes).map(([kind, { code, means }]) => `| ${code} | \`${kind}\` | ${means} |`);
  parts.push(
    `## Exit codes\n\nThe same for every command; \`kind\` is what the JSON document says.\n\n${['| Code | Kind | Meaning |', '| ---: | --- | --- |', '| 0 | | success |', ...codes].join('\n')}`,
  );
  return `${parts.join('\n\n')}\n`;
}

function capital(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}
