// Elements. All text is set as text, never as markup: names come from models and tokenizers.

/**
 * An element with its properties and what is in it.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [properties]  `class`, `on…` listeners, `aria-…` and `data-…`
 *   attributes, other properties by name; what is undefined is left out.
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (/^(aria-|data-|role$|for$)/.test(name)) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * The element with an id, which the template has.
 * @param {string} id
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`There is no #${id}.`);
  return found;
}

/**
 * Put other things into an element, and leave the keyboard's focus where it was.
 * @param {HTMLElement} element
 * @param {...(Node | string | null)} children
 */
export function fill(element, ...children) {
  const focused = element.contains(document.activeElement)
    ? document.activeElement?.getAttribute("data-key")
    : null;
  element.replaceChildren(...children.filter((child) => child !== null));
  if (focused) {
    const again = element.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again instanceof HTMLElement) again.focus({ preventScroll: true });
  }
}

/**
 * One stop for Tab in a group of buttons, arrow keys from one to the next: they may be hundreds.
 * @param {HTMLElement} group
 * @param {[string, string]} keys  Back and forth, in the order of the elements.
 */
export function rove(group, keys) {
  const buttons = () => [...group.querySelectorAll("button")];
  const at = (/** @type {EventTarget | null} */ target) => buttons().findIndex((button) => button === target);
  group.addEventListener("keydown", (event) => {
    const step = event.key === keys[0] ? -1 : event.key === keys[1] ? 1 : 0;
    const next = buttons()[at(event.target) + step];
    if (!step || !next) return;
    event.preventDefault();
    next.focus();
  });
  group.addEventListener("focusin", (event) => {
    group.dataset.current = buttons()[at(event.target)]?.dataset.key;
    stop(group);
  });
}

/**
 * Make the button that had the focus last, or else the first, the one that Tab stops at.
 * @param {HTMLElement} group
 */
export function stop(group) {
  const buttons = [...group.querySelectorAll("button")];
  const current = buttons.find((button) => button.dataset.key === group.dataset.current) ?? buttons[0];
  for (const button of buttons) button.tabIndex = button === current ? 0 : -1;
}
