// Asks every node for its status once a second and shows what they say. Each node speaks for itself.

const PERIOD_MS = 1000;
const PATIENCE_MS = 900;

async function statusOf(base) {
  const answer = await fetch(`${base}/status.json`, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
}

function showNode(body, { node, http, status, error }) {
  const row = body.insertRow();
  cell(row, node);
  if (!status) {
    cell(row, `no answer: ${error}`, 'bad').colSpan = 4;
  } else {
    cell(row, status.ready ? 'ready' : status.not_ready_because || 'not ready', status.ready ? 'good' : 'bad');
    cell(row, status.clients);
    cell(row, duration(status.uptime_ms));
    cell(row, status.version);
  }
  const link = document.createElement('a');
  link.href = http || '/';
  link.textContent = http || 'this node';
  cell(row, '').append(link);
}

function showReplica(body, replica, committed) {
  const row = body.insertRow();
  row.className = replica.owner ? 'leader' : '';
  const remarks = [replica.owner && 'owner', replica.diverged && 'diverged', replica.fault,
    replica.halted_index && `halted at entry ${replica.halted_index}: ${replica.halted_because}`].filter(Boolean).join(', ');
  const behind = Math.max(0, committed - replica.applied_index);
  for (const text of [
    replica.group, replica.replica, replica.role, replica.term, replica.tick || '–',
    replica.time_rate ? `${replica.time_rate} %` : '–', replica.sessions, replica.entities, replica.applied_index, behind,
    replica.durable_index,
  ]) cell(row, text);
  cell(row, remarks, replica.diverged || replica.fault || replica.halted_index ? 'bad' : '');
}

async function refresh() {
  const own = await statusOf('');
  const members = own.members.length ? own.members : [{ node: own.node, http: '' }];
  const nodes = await Promise.all(members.map(async ({ node, http }) => {
    if (node === own.node) return { node, http, status: own };
    try {
      return { node, http, status: await statusOf(http) };
    } catch (error) {
      return { node, http, error: error.message };
    }
  }));
  const replicas = nodes.flatMap((n) => n.status?.groups ?? []).sort((a, b) =>
    a.group.localeCompare(b.group, undefined, { numeric: true }) || a.replica.localeCompare(b.replica, undefined, { numeric: true }));
  const committed = new Map();
  for (const r of replicas) committed.set(r.group, Math.max(committed.get(r.group) ?? 0, r.committed_index));

  const nodeRows = document.createElement('tbody');
  nodes.forEach((n) => showNode(nodeRows, n));
  document.getElementById('nodes').replaceChildren(...nodeRows.rows);
  const groupRows = document.createElement('tbody');
  replicas.forEach((r) => showReplica(groupRows, r, committed.get(r.group)));
  document.getElementById('groups').replaceChildren(...groupRows.rows);

  const there = nodes.filter((n) => n.status);
  const players = there.reduce((sum, n) => sum + n.status.clients, 0);
  const trouble = nodes.length - there.filter((n) => n.status.ready).length;
  const scope = own.members.length ? `${nodes.length} nodes` : `node ${own.node} alone`;
  return `${scope}${trouble ? `, ${trouble} not ready` : ''} · ${committed.size} groups · ${players} players`;
}

async function run() {
  const summary = document.getElementById('summary');
  for (;;) {
    try {
      summary.textContent = await refresh();
      summary.className = '';
    } catch (error) {
      summary.textContent = `This node does not answer: ${error.message}`;
      summary.className = 'bad';
    }
    await new Promise((wake) => setTimeout(wake, document.hidden ? 5 * PERIOD_MS : PERIOD_MS));
  }
}

run();
