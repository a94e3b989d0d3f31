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
