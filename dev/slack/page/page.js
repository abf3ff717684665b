import { el, spans, blocks, textOf, values, restore } from './blocks.js';

const $ = (id) => document.getElementById(id);
const here = new URLSearchParams(location.search);
const me = { user: here.get('user') || '', channel: here.get('channel') || '', thread: here.get('thread') || '' };
const permalink = location.pathname.match(/^\/archives\/([^/]+)\/p(\d+)/);
if (permalink) me.channel = permalink[1];

let state = null;
let drawn = '';
let modalDrawn = '';
let fetching = false;
let again = false;

const people = {
  user: (id) => state.users.find((u) => u.id === id)?.name || id,
  group: (id) => state.groups.find((g) => g.id === id)?.handle || id,
  channel: (id) => state.channels.find((c) => c.id === id)?.name || id,
};

// refresh fetches the state; changes that come meanwhile lead to one more fetch.
async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  do {
    again = false;
    try {
      const answer = await fetch(`/page/state?${new URLSearchParams({ user: me.user, channel: me.channel })}`);
      state = await answer.json();
      draw();
    } catch (err) {
      notice(`The stand-in does not answer: ${err.message}`);
    }
  } while (again);
  fetching = false;
}

async function send(path, body, method = 'POST') {
  const answer = await fetch(path, { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  if (!answer.ok) notice((await answer.json()).error);
  return answer;
}

function notice(text) { $('notice').textContent = text; }

function remember() {
  const query = new URLSearchParams({ user: me.user, channel: me.channel });
  if (me.thread) query.set('thread', me.thread);
  history.replaceState(null, '', `/?${query}`);
}

function draw() {
  if (!state.users.some((u) => u.id === me.user)) {
    me.user = (state.users.find((u) => u.kind === '') || state.users[0]).id;
    again = true; // what this person sees
  }
  me.channel = state.channel;
  const now = JSON.stringify([me, state]);
  if (now === drawn) return;
  drawn = now;
  drawPeople();
  drawChannels();
  drawMessages();
  drawThread();
  drawModal();
  drawCallbacks();
  drawFaults();
  notice(state.interactivity ? '' : 'No interactivity URL: clicks go nowhere');
}

function drawPeople() {
  $('acting-as').replaceChildren(...state.users.filter((u) => u.id !== state.app.user)
    .map((u) => el('option', { value: u.id, selected: u.id === me.user }, u.kind ? `${u.real_name} · ${u.kind}` : u.real_name)));
}

function drawChannels() {
  $('channels').replaceChildren(...state.channels.map((c) => el('li', {}, el('button', {
    type: 'button', class: 'channel', 'aria-current': c.id === state.channel ? 'true' : null, data: { channel: c.id },
    onclick: () => { me.channel = c.id; me.thread = ''; remember(); refresh(); },
  }, c.direct_user ? state.app.name : `# ${c.name}`, c.app_is_member ? null : el('small', {}, 'app not in here')))));
  const c = state.channels.find((x) => x.id === state.channel);
  $('channel-name').textContent = c ? (c.direct_user ? state.app.name : `# ${c.name}`) : '';
  $('channel-topic').textContent = c?.topic || '';
}

const isReply = (m) => m.thread_ts && m.thread_ts !== m.ts;

function drawMessages() {
  const pane = $('messages');
  const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 80;
  const shown = state.messages.filter((m) => !isReply(m));
  pane.replaceChildren(...(shown.length ? shown.map((m) => message(m, true)) : [el('p', { class: 'empty' }, 'Nothing was posted here yet.')]));
  if (atEnd) pane.scrollTop = pane.scrollHeight;
  if (permalink) pane.querySelector(`[data-link="${permalink[2]}"]`)?.classList.add('target');
}

function drawThread() {
  const parts = state.messages.filter((m) => m.ts === me.thread || m.thread_ts === me.thread);
  $('thread').hidden = !me.thread || parts.length === 0;
  document.body.classList.toggle('with-thread', !$('thread').hidden);
  $('thread-messages').replaceChildren(...parts.map((m) => message(m, false)));
}

function message(m, inChannel) {
  const ctx = { people, waiting: m.waiting, act: (e, block, choice) => press(e, { channel: m.channel, ts: m.ts }, block, choice) };
  const author = state.users.find((u) => u.id === m.user);
  const time = new Date(Number(m.ts) * 1000);
  const body = el('div', { class: 'body' },
    el('div', { class: 'by' }, el('strong', {}, author?.real_name || m.user), el('span', { class: 'app-mark' }, 'APP'),
      el('time', { datetime: time.toISOString(), title: time.toISOString() }, time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })),
      m.edited ? el('span', { class: 'edited' }, '(edited)') : null));
  if (m.spans?.length) body.append(el('div', { class: 'text' }, spans(m.spans, people)));
  body.append(blocks(m.shown, ctx), ...(m.files || []).map(file));
  if (m.waiting) body.append(el('div', { class: 'sending', role: 'status' }, 'Waiting for the app…'));
  if (m.warning) body.append(el('div', { class: 'warning', role: 'alert' }, el('span', { class: 'triangle' }, '⚠'), ` The app did not acknowledge your click: ${m.warning}`));
  if (inChannel && m.reply_count) {
    body.append(el('button', { type: 'button', class: 'replies', onclick: () => { me.thread = m.ts; remember(); refresh(); } },
      m.reply_count === 1 ? '1 reply' : `${m.reply_count} replies`));
  }
  return el('article', { class: `message ${m.ephemeral ? 'ephemeral' : ''}`, data: { ts: m.ts, link: m.ts.replace('.', '') } },
    m.ephemeral ? el('div', { class: 'only-you' }, 'Only visible to you') : null,
    el('div', { class: 'avatar', 'aria-hidden': 'true' }, (author?.real_name || '?')[0]), body);
}

function file(f) {
  const src = `/page/files/${f.id}`;
  const inner = f.mimetype.startsWith('image/') ? el('img', { src, alt: f.alt_txt || f.title, class: 'large' }) : el('a', { href: src, download: f.name }, `${f.name} (${f.size} bytes)`);
  return el('figure', { class: 'file' }, el('figcaption', {}, f.title), inner);
}

// press asks where the element wants to be confirmed, then sends the interaction.
async function press(e, where, block, choice, filled) {
  if (e.confirm && !(await confirmed(e.confirm))) return;
  await send('/admin/click', { user: me.user, ...where, block_id: block.block_id, action_id: e.action_id, choice, values: filled });
}

function confirmed(c) {
  const dialog = $('confirm');
  return new Promise((resolve) => {
    const done = (yes) => { dialog.close(); resolve(yes); };
    dialog.oncancel = () => resolve(false);
    dialog.replaceChildren(
      el('header', {}, el('h2', { id: 'confirm-title' }, textOf(c.title, people))),
      el('div', { class: 'content' }, textOf(c.text, people)),
      el('footer', {},
        el('button', { type: 'button', class: 'press', data: { confirm: 'no' }, onclick: () => done(false) }, textOf(c.deny, people)),
        el('button', { type: 'button', class: `press ${c.style || 'primary'}`, data: { confirm: 'yes' }, onclick: () => done(true) }, textOf(c.confirm, people))));
    dialog.showModal();
  });
}


function drawModal() {
  const dialog = $('modal');
  const v = state.view;
  if (!v) {
    if (dialog.open) dialog.close();
    modalDrawn = '';
    return;
  }
  const now = JSON.stringify([v.id, v.hash, v.errors, v.trouble, v.warning]);
  if (now === modalDrawn && dialog.open) return;
  const sameView = modalDrawn.startsWith(JSON.stringify([v.id]).slice(0, -1)); // an updated view keeps what was typed, as in Slack
  const saved = sameView && dialog.open ? values(dialog) : null;
  modalDrawn = now;
  const where = { view: v.id };
  const ctx = { people, form: true, errors: v.errors, act: (e, block, choice) => press(e, where, block, choice, values(dialog)) };
  const close = () => send('/admin/close', { user: me.user, view: v.id });
  const form = el('form', { novalidate: true, data: { view: v.id } },
    el('header', {}, el('h2', { id: 'modal-title' }, textOf(v.shown_title, people)),
      el('button', { type: 'button', class: 'icon', 'aria-label': 'Close', onclick: close }, '✕')),
    v.trouble ? el('p', { class: 'trouble', role: 'alert' }, `⚠ ${v.trouble}`, el('small', {}, v.warning || '')) : null,
    el('div', { class: 'content' }, blocks(v.shown, ctx)),
    el('footer', {},
      el('span', { class: 'modal-app' }, state.app.name),
      el('button', { type: 'button', class: 'press', data: { close: v.id }, onclick: close }, v.shown_close ? textOf(v.shown_close, people) : 'Cancel'),
      v.shown_submit ? el('button', { type: 'submit', class: 'press primary', data: { submit: v.id } }, textOf(v.shown_submit, people)) : null));
  form.addEventListener('submit', (event) => { event.preventDefault(); submit(form, v.id); });
  dialog.oncancel = (event) => { event.preventDefault(); close(); };
  dialog.replaceChildren(form);
  if (saved) restore(form, saved);
  if (!dialog.open) dialog.showModal();
  if (!saved) form.querySelector('.content input, .content textarea, .content select')?.focus();
}

async function submit(form, view) {
  const button = form.querySelector('[data-submit]');
  button.disabled = true;
  form.querySelectorAll('.refused').forEach((p) => p.remove());
  const answer = await fetch('/admin/submit', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ user: me.user, view, values: values(form) }),
  });
  button.disabled = false;
  if (answer.status === 400) {
    form.querySelector('footer').before(el('p', { class: 'trouble refused', role: 'alert' }, `⚠ ${(await answer.json()).error}`));
  }
  refresh();
}

function drawCallbacks() {
  const mark = (c) => (!c.done ? '…' : c.acked ? '✓' : '⚠');
  $('callbacks').replaceChildren(...state.callbacks.map((c) => el('li', { class: c.done && !c.acked ? 'missed' : '', title: c.problem },
    `${mark(c)} ${c.type.replace('_', ' ')} · ${people.user(c.user)}`,
    el('small', {}, [c.action_id, c.done ? `${Math.max(1, Math.round(c.duration_ms))} ms` : 'waiting', ...(c.faults || []), c.problem].filter(Boolean).join(' · ')))));
  if (!state.callbacks.length) $('callbacks').append(el('li', {}, el('small', {}, 'Nobody clicked yet.')));
}

function drawFaults() {
  $('fault-count').textContent = state.faults.length ? `(${state.faults.length} on)` : '';
  $('faults').replaceChildren(...state.faults.map((f) => el('li', {}, `${f.kind}${f.method ? ' · ' + f.method : ''}${f.times ? ` · ${f.times}×` : ''}`)));
  if ($('fault-kind').options.length) return;
  $('fault-kind').append(...state.fault_kinds.map((k) => el('option', {}, k)));
  $('fault-method').append(el('option', { value: '' }, 'anything'), ...['block_actions', 'view_submission', 'view_closed', ...state.methods].map((m) => el('option', {}, m)));
}

$('acting-as').addEventListener('change', (event) => { me.user = event.target.value; me.thread = ''; remember(); refresh(); });
$('thread-close').addEventListener('click', () => { me.thread = ''; remember(); drawn = ''; draw(); });
$('faults-clear').addEventListener('click', () => fetch('/admin/faults', { method: 'DELETE' }));
$('fault-form').addEventListener('submit', (event) => {
  event.preventDefault();
  send('/admin/faults', { kind: $('fault-kind').value, method: $('fault-method').value, times: Number($('fault-times').value) });
});
new EventSource('/page/events').onmessage = refresh;
