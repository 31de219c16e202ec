// The panels around the picture: figures, inventory, chat, status. Text from others is only ever set as text, never as HTML.

import { oreColour } from './draw.js';

const LOG_LINES = 60;
const element = (id) => document.getElementById(id);

export class Hud {
  constructor() {
    this.inventoryKey = undefined;
    // On a small screen the picture is worth more than the figures.
    if (window.innerWidth < 640) element('figures').open = false;
  }

  show(playing) {
    element('welcome').hidden = playing;
    element('hud').hidden = !playing;
    element('view').hidden = !playing;
  }

  status(text) {
    if (element('status').textContent !== text) element('status').textContent = text;
  }

  signInError(text) {
    element('sign-in-error').textContent = text;
  }

  busy(busy) {
    element('enter').disabled = busy;
    element('enter').textContent = busy ? 'Entering…' : 'Enter the world';
  }

  figures(figures) {
    for (const [name, text] of Object.entries(figures)) {
      const field = element(`f-${name}`);
      if (field.textContent !== text) field.textContent = text;
    }
  }

  line(by, text) {
    const log = element('log');
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    const item = document.createElement('li');
    if (by) {
      const name = document.createElement('span');
      name.className = 'by';
      name.textContent = `${by}: `;
      item.append(name, text);
    } else {
      item.className = 'note';
      item.textContent = text;
    }
    log.append(item);
    while (log.children.length > LOG_LINES) log.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  inventory(items, names, drop) {
    const key = items.map((item) => String(item.id)).join();
    if (key === this.inventoryKey) return;
    this.inventoryKey = key;
    element('inventory-count').textContent = String(items.length);
    element('items').replaceChildren(
      ...items.map((item) => {
        const line = document.createElement('li');
        const gem = document.createElement('span');
        gem.className = 'gem';
        gem.style.background = oreColour(item.kind);
        const label = document.createElement('span');
        label.className = 'id';
        label.textContent = `${names(item.kind)} #${item.id}`;
        const button = document.createElement('button');
        button.type = 'button';
        button.textContent = 'Drop';
        button.setAttribute('aria-label', `Drop ${label.textContent}`);
        button.addEventListener('click', () => drop(item));
        line.append(gem, label, button);
        return line;
      }),
    );
  }
}
