// What people read: errors by code with what to do next, money, sizes, times.

// code -> [title, what to do, what the button does: "key" opens the key dialog, "retry" runs again]
export const ADVICE = {
  invalid_api_key: ["This gateway wants an API key", "Enter a key that its operator gave you. It is sent to this gateway only.", "key"],
  model_not_allowed: ["This key may not use this model", "Choose another model, or ask the operator to allow it for your key.", "key"],
  origin_not_allowed: ["This address may not call the gateway", "Open these pages at the gateway's public URL, or let the operator set IMAGEGATE_PUBLIC_URL to this address."],
  admin_key_required: ["Only the admin key may do this", "Enter the admin key (IMAGEGATE_ADMIN_KEY).", "key"],
  insufficient_quota: ["The budget of this key is used up", "Ask for a smaller run (fewer pictures, fewer pixels), wait until the budget begins anew, or ask the operator to raise it."],
  rate_limit_exceeded: ["Too many requests just now", "Wait a moment, then run it again.", "retry"],
  model_not_found: ["There is no such model", "Choose a model from the list."],
  not_found: ["There is nothing here", "Check the address. It may have been deleted since."],
  method_not_allowed: ["The gateway does not take this call", "The page and the gateway may be of different versions: reload the page."],
  missing_required_parameter: ["Something is missing", "Fill in the marked field."],
  price_unknown: ["What this run costs is not known", "This key has a budget, and what is not known cannot be held against it. Choose another model, or ask the operator for the price in the model's file."],
  invalid_type: ["A value has the wrong type", "Mend the marked field."],
  invalid_value: ["A value is not allowed", "Mend the marked field."],
  integer_below_min_value: ["A number is too small", "Raise it to what the field allows."],
  decimal_below_min_value: ["A number is too small", "Raise it to what the field allows."],
  integer_above_max_value: ["A number is too large", "Lower it to what the field allows."],
  decimal_above_max_value: ["A number is too large", "Lower it to what the field allows."],
  empty_string: ["A text is empty", "Write something into the marked field."],
  string_above_max_length: ["A text is too long", "Shorten the marked field."],
  unsupported_parameter: ["This model cannot do that", "Empty the marked field, or choose another model."],
  unknown_parameter: ["The gateway is strict and does not know a parameter", "Leave it out: the operator has set strict mode."],
  gateway_loop: ["The model leads back to itself", "One of its providers is a gateway that asks this one for the same model. Its operator mends it."],
  unsupported_mode: ["This model does something else", "Choose a model that does what you ask for."],
  invalid_body: ["The request could not be read", "Reload the page and try again."],
  invalid_image_file: ["A picture cannot be read", "It may be damaged, or no picture at all. Remove it, or save it anew as PNG or JPEG."],
  unsupported_file_mimetype: ["A file is of a kind that is not taken", "Use PNG, JPEG, WebP, GIF or AVIF."],
  too_many_images: ["Too many pictures for this model", "Remove some of them."],
  image_too_large: ["A picture is too large", "Make it smaller (fewer pixels, or JPEG instead of PNG), and add it again."],
  invalid_image_url: ["A picture's address cannot be used", "Add the picture itself instead."],
  content_policy_violation: ["The provider refused this request", "Reword the prompt or use another picture. The provider's rules decide, not the gateway."],
  invalid_signature: ["The picture's link is not valid", "Open the request again for a fresh link."],
  expired: ["The picture's link has run out", "Open the request again; if its pictures are gone there too, they were deleted."],
  request_timeout: ["The upload was too slow", "Try again, or use smaller pictures.", "retry"],
  request_too_large: ["The pictures are too large together", "Remove some, or make them smaller."],
  unsupported_content_type: ["The request could not be read", "Reload the page and try again."],
  idempotency_mismatch: ["This run was asked for in another form before", "Run it again.", "retry"],
  cancelled: ["Cancelled", "The gateway was told to cancel the job at the provider. What was made before that is in the request log, with its cost.", "retry"],
  internal_error: ["The gateway failed", "This is a defect. Tell the operator the request id below; the log has the details.", "retry"],
  overloaded: ["The gateway has no room just now", "Wait a moment, then run it again.", "retry"],
  provider_unavailable: ["The provider is down or cannot be reached", "Wait a moment and run it again, or choose another model or provider.", "retry"],
  provider_bad_response: ["The provider answered something unusable", "Look at the request in the log before you run it again: it may have been charged."],
  provider_misconfigured: ["The gateway's account at the provider does not work", "Only the operator can mend this: the key or the balance at the provider. Your own key is fine."],
  upstream_ambiguous: ["It is not known yet whether the provider took the job", "Look at the request in the log in a minute, before you run it again: it may have been bought."],
  provider_timeout: ["The provider did not finish in time", "Look at the request in the log before you run it again: it may still be finished and charged."],
  all_providers_failed: ["No provider could do it", "Wait a moment and run it again, or choose another model.", "retry"],
  gateway_unavailable: ["The gateway is gone, or does not answer", "Look at the request log before you run it again: another gateway finishes what it had begun.", "retry"],
  unreachable: ["The gateway cannot be reached", "Check that it is running and that you are connected, then try again.", "retry"],
  unreadable: ["The answer could not be read", "Something between this page and the gateway answered instead of it. Try again, or ask the operator.", "retry"],
};

export function adviceFor(code) {
  const [title, next, action] = ADVICE[code] ?? ["It did not work", "The message below says why.", "retry"];
  return { title, next, action };
}

export const DOES = { "image-edit": "Edit pictures", "text-to-image": "Make pictures from words" };

export const SANDBOX = "A sandbox stands in for the provider: its pictures are samples and no AI, and nothing is billed. The real models need the provider's key at the gateway.";

/** A prompt to begin with. */
export const exampleFor = (edits) => (edits ? "make it a snowy night" : "a harbour in fog");

/** Models by what they do first: [mode, models] for each mode. */
export function byMode(models) {
  const found = new Map();
  for (const one of models) found.set(one.modes[0], [...(found.get(one.modes[0]) ?? []), one]);
  return [...found];
}

export const HOW = {
  passthrough: "sent to the provider as it is",
  renamed: "sent under the provider's own name",
  converted: "brought into the provider's form",
  emulated: "done by the gateway itself",
  ignored: "this model has no such knob: accepted, without effect",
  rejected: "cannot be formed: refused",
};

export function money(amount, currency = "USD") {
  if (amount === null || amount === undefined) return "unknown";
  const digits = amount !== 0 && Math.abs(amount) < 0.01 ? 6 : 4;
  return new Intl.NumberFormat("en-US", { style: "currency", currency, minimumFractionDigits: 2, maximumFractionDigits: digits }).format(amount);
}

/** What was billed, as far as it is known: nothing known is not nothing. Takes what has the `cost` fields of a request. */
export function costOf({ cost, cost_currency: currency, cost_uncertain: uncertain }) {
  if (!uncertain) return money(cost, currency);
  return cost ? `${money(cost, currency)} or more` : "unknown";
}

export function bytes(count) {
  if (count >= 1 << 20) return `${Math.round((count / (1 << 20)) * 10) / 10} MiB`;
  return count >= 1024 ? `${Math.round(count / 1024)} KiB` : `${count} bytes`;
}

export function when(seconds) {
  return new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" }).format(new Date(seconds * 1000));
}

export const count = (number, one, many = `${one}s`) => `${new Intl.NumberFormat("en-US").format(number)} ${number === 1 ? one : many}`;

export const perUnit = (price) => {
  if (!price) return "price unknown";
  const unit = `${money(price.amount, price.currency)} / ${price.per}`;
  if (price.first !== null) return `${money(price.first, price.currency)} for the first, then ${unit}`;
  return price.cases.length ? `${unit}, other amounts for some settings` : unit;
};
