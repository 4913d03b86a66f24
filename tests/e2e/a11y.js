// What is wrong with the page as it is shown now; evaluated in it by a11y.py.
() => {
  const found = [];
  const complain = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const isVisible = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest('[aria-hidden=true]');
  const root = document.querySelector('dialog[open]') || document.body;
  const all = (selector) => [...root.querySelectorAll(selector)].filter(isVisible);

  const textOf = (ids) => ids.split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join(' ');
  const nameOf = (element) => (element.getAttribute('aria-label')
    || textOf(element.getAttribute('aria-labelledby') || '')
    || [...(element.labels || [])].map((label) => label.textContent).join(' ')
    || (element.matches('input, select, textarea') ? '' : element.textContent)).trim();
  for (const element of all('a, button, input, select, textarea, summary, dialog, table, [role=img], [role=group], [role=region], nav, section.part')) {
    if (!element.matches('section') && !nameOf(element)) complain('has no name', element);
  }
  for (const reference of ['aria-labelledby', 'aria-describedby', 'for']) {
    for (const element of all(`[${reference}]`)) {
      for (const id of element.getAttribute(reference).split(' ')) if (!document.getElementById(id)) complain(`${reference} leads nowhere`, element);
    }
  }
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  if (new Set(ids).size !== ids.length) found.push('an id is there twice');
  for (const element of all('[tabindex]')) if (element.tabIndex > 0) complain('has a tabindex above 0', element);
  for (const element of all('svg:not([role=img])')) if (element.getAttribute('aria-hidden') !== 'true' && !element.closest('[role=img]')) complain('is neither an image nor hidden', element);
  for (const element of all('th:not([scope])')) complain('is a head of nothing', element);
  if (!document.documentElement.lang) found.push('no language is told');
  if (root === document.body) {
    for (const landmark of ['header', 'nav', 'main', 'footer']) if (!root.querySelector(landmark)) found.push(`there is no ${landmark}`);
    if (document.querySelectorAll('[aria-live=polite]').length !== 1) found.push('more than one place is read out, or none');
  }
  let level = root === document.body ? 0 : 1;
  for (const heading of all('h1, h2, h3')) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) complain(`follows a heading of level ${level}`, heading);
    level = own;
  }

  // Contrast, https://www.w3.org/TR/WCAG21/#contrast-minimum
  const rgb = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
  const groundOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.a === 1) return colour;
    }
    return rgb('rgb(255, 255, 255)');
  };
  for (const element of all('*')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || element.closest('.visually-hidden, .skip, svg') || getComputedStyle(element).fontSize === '0px') continue;
    const [one, other] = [light(rgb(getComputedStyle(element).color)), light(groundOf(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) complain(`has a contrast of ${ratio.toFixed(2)}`, element);
  }
  return found;
}
