import { describe, expect, it } from 'vitest';
import { renderRunHtml } from '../../src/report/run-html.ts';
import type { RunReport } from '../../src/runbook/run-report.ts';

const t0 = Date.parse('2026-11-23T03:00:00Z');
const minute = 60_000;

function report(change: Partial<RunReport> = {}): RunReport {
  return {
    format: 1,
    runId: '20261123T030000000Z-abc123',
    runbook: 'failover',
    mode: 'failover',
    site: 'west',
    from: 'east',
    reason: 'region <east> & "all" is dark',
    outcome: 'succeeded',
    startedAtMs: t0,
    endedAtMs: t0 + 40 * minute,
    by: ['ops@host'],
    rto: { objectiveMs: 60 * minute, achievedMs: 39 * minute, met: true },
    stages: [
      { name: 'assess', startedAtMs: t0, endedAtMs: t0 + minute, ms: minute, budgetMs: 5 * minute, status: 'done' },
      {
        name: 'restore',
        startedAtMs: t0 + minute,
        endedAtMs: t0 + 39 * minute,
        ms: 38 * minute,
        budgetMs: 35 * minute,
        status: 'done',
      },
    ],
    steps: [
      {
        id: 'database[orders]',
        stage: 'restore',
        uses: 'database.restore',
        title: 'Restore',
        status: 'done',
        attempts: 2,
        startedAtMs: t0 + minute,
        ms: 38 * minute,
        evidence: ['<script>alert(1)</script> postgresql://dr:hunter2secret@db/orders'],
      },
    ],
    resources: [],
    approvals: [{ step: 'promote', name: 'Ann', at: '2026-11-23T03:30:00.000Z', comment: 'go' }],
    timeline: [{ at: '2026-11-23T03:00:00.000Z', by: 'ops@host', text: 'started' }],
    journal: { entries: 7, sha256: 'f'.repeat(64) },
    ...change,
  };
}

describe('the report as HTML', () => {
  it('is one file that runs nothing and fetches nothing', () => {
    const html = renderRunHtml(report());
    expect(html).not.toMatch(/<script|<link|<img|\son\w+=|url\(|https?:/i);
    expect(html).toContain("default-src 'none'");
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(html).toContain('region &lt;east&gt; &amp; &quot;all&quot; is dark');
    expect(html).not.toContain('hunter2secret');
  });

  it('draws every stage with its budget, every step, and the objective', () => {
    const html = renderRunHtml(report());
    const svg = html.slice(html.indexOf('<svg'), html.indexOf('</svg>'));
    expect(svg.match(/class="budget"/g)).toHaveLength(2);
    expect(svg).toContain('database[orders]: 38 min');
    expect(svg).toContain('objective: 1 h');
    expect(html).toContain('done, 3 min over its budget');
    // Nothing is drawn outside the picture, whatever the times.
    const widths = [...svg.matchAll(/ x="([-\d.]+)" y="[-\d.]+" width="([-\d.]+)"/g)].map(
      ([, x, width]) => Number(x) + Number(width),
    );
    expect(widths.length).toBeGreaterThan(4);
    expect(Math.max(...widths)).toBeLessThanOrEqual(1000);
    expect(Math.min(...widths)).toBeGreaterThan(0);
  });

  it('says at the top when the result is not good', () => {
    expect(renderRunHtml(report())).toContain('class="verdict good"');
    expect(renderRunHtml(report({ rto: { objectiveMs: minute, achievedMs: 2 * minute, met: false } }))).toContain(
      'class="verdict warn"',
    );
    expect(renderRunHtml(report({ outcome: 'failed' }))).toContain('class="verdict bad"');
    expect(renderRunHtml(report({ acceptedSplitBrain: 'Bob <b>' }))).toContain('Bob &lt;b&gt; accepted');
  });

  it('shows a run that has not begun anything without a picture', () => {
    expect(renderRunHtml(report({ stages: [], steps: [] }))).not.toContain('<svg');
  });
});
