// Draws Block Kit blocks. Everything comes in as text nodes: nothing that the app sends is ever parsed as HTML.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') node.className = value;
    else if (key === 'data') Object.assign(node.dataset, value);
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function safeLink(url, label) {
  const ok = /^(https?:|mailto:)/i.test(url);
  return ok ? el('a', { href: url, target: '_blank', rel: 'noopener noreferrer nofollow', title: url }, label) : el('span', {}, label);
}

const wrappers = { bold: 'strong', italic: 'em', strike: 's', code: 'code', quote: 'blockquote', pre: 'pre' };

// spans draws what the server parsed out of mrkdwn or plain text.
export function spans(list, people) {
  const out = document.createDocumentFragment();
  for (const s of list || []) {
    if (s.kind === 'text' || s.kind === 'date') lines(out, s.text || '');
    else if (s.kind === 'emoji') out.append(emoji(s.text, s.name));
    else if (s.kind === 'link') out.append(safeLink(s.url, s.text));
    else if (s.kind === 'user') out.append(mention('@' + people.user(s.text)));
    else if (s.kind === 'group') out.append(mention('@' + people.group(s.text)));
    else if (s.kind === 'channel') out.append(mention('#' + people.channel(s.text)));
    else if (s.kind === 'broadcast') out.append(mention('@' + s.text, 'mention loud'));
    else out.append(el(wrappers[s.kind] || 'span', {}, spans(s.inner, people)));
  }
  return out;
}

// emoji shows the sign, or Slack's name of it where no installed font has signs.
const emoji = (sign, name) => el('span', { class: 'emoji', title: `:${name}:`, data: { emoji: name } }, hasEmoji && sign ? sign : `:${name}:`);

const hasEmoji = (() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  pen.font = '20px sans-serif';
  pen.textBaseline = 'top';
  pen.fillText('🚨', 0, 0);
  const dots = pen.getImageData(0, 0, 24, 24).data;
  for (let i = 0; i < dots.length; i += 4) {
    if (dots[i + 3] > 0 && dots[i] !== dots[i + 1]) return true; // a missing sign is drawn in black
  }
  return false;
})();
if (!hasEmoji) document.documentElement.classList.add('no-emoji');

const mention = (text, kind = 'mention') => el('span', { class: kind }, text);

function lines(out, text) {
  text.split('\n').forEach((line, i) => {
    if (i > 0) out.append(el('br'));
    out.append(line);
  });
}

export const textOf = (object, people) => spans(object?.spans, people);

// blocks draws a list of blocks. ctx: people, act(element, block, choice), form (true in a modal), errors by block id.
export function blocks(list, ctx) {
  const out = document.createDocumentFragment();
  for (const b of list || []) {
    const draw = drawers[b.type];
    const node = draw ? draw(b, ctx) : el('div', { class: 'unknown' }, `block of type ${b.type}`);
    node.classList.add('block', b.type);
    node.dataset.blockId = b.block_id || '';
    out.append(node);
  }
  return out;
}

const drawers = {
  header: (b, ctx) => el('div', { role: 'heading', 'aria-level': '3' }, textOf(b.text, ctx.people)),
  divider: () => el('hr'),
  section(b, ctx) {
    const words = el('div', { class: 'words' });
    if (b.text) words.append(el('div', { class: 'text' }, textOf(b.text, ctx.people)));
    if (b.fields) words.append(el('div', { class: 'fields' }, ...b.fields.map((f) => el('div', { class: 'field' }, textOf(f, ctx.people)))));
    return el('div', {}, words, b.accessory ? el('div', { class: 'accessory' }, element(b.accessory, b, ctx)) : null);
  },
  context: (b, ctx) => el('div', {}, ...b.elements.map((e) => (e.type === 'image' ? picture(e, 'small') : el('span', {}, textOf(e, ctx.people))))),
  actions: (b, ctx) => el('div', {}, ...b.elements.map((e) => element(e, b, ctx))),
  image(b, ctx) {
    return el('figure', {}, b.title ? el('figcaption', {}, textOf(b.title, ctx.people)) : null, picture(b, 'large'));
  },
  input(b, ctx) {
    const id = `input-${b.block_id}`;
    const error = ctx.errors?.[b.block_id];
    const group = b.element.type === 'radio_buttons' || b.element.type === 'checkboxes';
    const label = el(group ? 'legend' : 'label', group ? {} : { for: id }, textOf(b.label, ctx.people), b.optional ? el('span', { class: 'optional' }, ' (optional)') : null);
    return el(group ? 'fieldset' : 'div', { 'aria-invalid': error ? 'true' : null }, label, element(b.element, b, ctx, id),
      error ? el('p', { class: 'error', role: 'alert' }, '⚠ ' + error) : null,
      b.hint ? el('p', { class: 'hint' }, textOf(b.hint, ctx.people)) : null);
  },
  rich_text: (b, ctx) => el('div', {}, ...b.elements.map((part) => richPart(part, ctx))),
};

const richTags = { rich_text_section: 'div', rich_text_preformatted: 'pre', rich_text_quote: 'blockquote' };

function richPart(part, ctx) {
  if (part.type === 'rich_text_list') {
    return el(part.style === 'ordered' ? 'ol' : 'ul', {}, ...part.elements.map((item) => el('li', {}, ...item.elements.map((l) => leaf(l, ctx)))));
  }
  return el(richTags[part.type] || 'div', {}, ...part.elements.map((l) => leaf(l, ctx)));
}

function leaf(l, ctx) {
  let node;
  if (l.type === 'text') { node = el('span'); lines(node, l.text); }
  else if (l.type === 'link') node = safeLink(l.url, l.text || l.url);
  else if (l.type === 'user') node = mention('@' + ctx.people.user(l.user_id));
  else if (l.type === 'usergroup') node = mention('@' + ctx.people.group(l.usergroup_id));
  else if (l.type === 'channel') node = mention('#' + ctx.people.channel(l.channel_id));
  else if (l.type === 'broadcast') node = mention('@' + l.range, 'mention loud');
  else node = emoji(l.sign, l.name);
  for (const [style, on] of Object.entries(l.style || {})) {
    if (on && wrappers[style]) node = el(wrappers[style], {}, node);
  }
  return node;
}

function picture(e, size) {
  const src = e.src || (e.image_url?.startsWith(location.origin + '/') ? e.image_url : null);
  if (!src) return el('span', { class: 'no-picture' }, `image not loaded: ${e.alt_text}`);
  return el('img', { src, alt: e.alt_text, class: size });
}

function element(e, block, ctx, id) {
  const draw = elements[e.type];
  const node = draw ? draw(e, block, ctx, id) : el('span', { class: 'unknown' }, `element of type ${e.type}`);
  node.dataset.actionId = e.action_id || '';
  return node;
}

const chosen = (e) => (e.initial_options || (e.initial_option ? [e.initial_option] : [])).map((o) => o.value);
const acts = (ctx, block) => block.type !== 'input' || block.dispatch_action;

const elements = {
  button(e, block, ctx) {
    return el('button', {
      type: 'button', class: `press ${e.style || ''}`, 'aria-label': e.accessibility_label, disabled: ctx.waiting,
      onclick: () => { ctx.act(e, block, []); if (e.url) window.open(e.url, '_blank', 'noopener,noreferrer'); },
    }, textOf(e.text, ctx.people));
  },
  image: (e) => picture(e, 'thumb'),
  plain_text_input(e, block, ctx, id) {
    const props = {
      id, class: 'typed', 'data-value': '', maxlength: e.max_length, minlength: e.min_length, autofocus: e.focus_on_load,
      placeholder: e.placeholder?.text,
    };
    if (!e.multiline) return el('input', { type: 'text', value: e.initial_value, ...props });
    return el('textarea', { rows: '4', ...props }, e.initial_value || '');
  },
  static_select(e, block, ctx, id) {
    const first = chosen(e)[0];
    const select = el('select', { id, class: 'typed', 'data-value': '' },
      el('option', { value: '', disabled: !block.optional, selected: !first }, e.placeholder?.text || 'Choose an option'),
      ...e.options.map((o) => el('option', { value: o.value, selected: o.value === first }, o.text.text)));
    if (acts(ctx, block)) select.addEventListener('change', () => select.value && ctx.act(e, block, [select.value]));
    return select;
  },
  radio_buttons: (e, block, ctx) => choices('radio', e, block, ctx),
  checkboxes: (e, block, ctx) => choices('checkbox', e, block, ctx),
  overflow(e, block, ctx) {
    const menu = el('details', { class: 'overflow' }, el('summary', { 'aria-label': 'More' }, '⋯'));
    menu.append(el('div', { class: 'menu' }, ...e.options.map((o) => el('button', {
      type: 'button', data: { value: o.value }, onclick: () => { menu.open = false; ctx.act(e, block, [o.value]); },
    }, textOf(o.text, ctx.people)))));
    return menu;
  },
};

function choices(type, e, block, ctx) {
  const name = `${block.block_id}/${e.action_id}`;
  const box = el('div', { class: 'choices' });
  for (const o of e.options) {
    box.append(el('label', {}, el('input', { type, name, value: o.value, checked: chosen(e).includes(o.value) }),
      el('span', {}, textOf(o.text, ctx.people), o.description ? el('span', { class: 'description' }, textOf(o.description, ctx.people)) : null)));
  }
  if (acts(ctx, block)) box.addEventListener('change', () => ctx.act(e, block, picked(box)));
  return box;
}

const picked = (box) => [...box.querySelectorAll('input:checked')].map((i) => i.value);

// values reads a modal's inputs as the admin API wants them.
export function values(form) {
  const out = {};
  for (const block of form.querySelectorAll('.block.input')) {
    const node = block.querySelector('[data-action-id]');
    if (!node) continue;
    const key = `${block.dataset.blockId}/${node.dataset.actionId}`;
    if (node.classList.contains('choices')) out[key] = picked(node);
    else out[key] = node.value ? [node.value] : [];
  }
  return out;
}

// restore puts earlier values back after a redraw.
export function restore(form, saved) {
  for (const block of form.querySelectorAll('.block.input')) {
    const node = block.querySelector('[data-action-id]');
    const was = node && saved[`${block.dataset.blockId}/${node.dataset.actionId}`];
    if (!was) continue;
    if (node.classList.contains('choices')) node.querySelectorAll('input').forEach((i) => { i.checked = was.includes(i.value); });
    else if (was.length) node.value = was[0];
  }
}
