"""OpenAPI documents in the shape in which fal publishes them, one for each way in which its models differ.

The facts are those of the project's notes on fal (per-model documents of 2026-06-11); the texts are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

PRESETS = ["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
RATIOS = ["21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"]


def document(endpoint: str, category: str, fields: Mapping[str, Json], required: list[str], **sides: int) -> Json:
    """The whole document; `sides`: bounds of ImageSize."""
    name = "".join(part.title() for part in endpoint.replace("/", "-").split("-"))
    side = {"type": "integer", "exclusiveMinimum": 0, "maximum": 14142, "default": 512}
    if sides:
        side = {"type": "integer", **sides, "default": 1024}
    status = {"type": "object", "properties": {"status": {"enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]}}}
    queue = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/QueueStatus"}}}}
    result = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}Output"}}}}
    body = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}Input"}}}}
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {endpoint}",
            "version": "1.0.0",
            "x-fal-metadata": {"endpointId": endpoint, "category": category},
        },
        "components": {
            "schemas": {
                "QueueStatus": status,
                f"{name}Input": {
                    "title": f"{name}Input",
                    "type": "object",
                    "properties": dict(sorted(fields.items())),  # the order is told apart
                    "required": required,
                    "x-fal-order-properties": list(fields),
                },
                f"{name}Output": {"type": "object", "properties": {"images": {"type": "array"}}},
                "ImageSize": {"type": "object", "properties": {"width": side, "height": side}},
                "LoraWeight": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
            }
        },
        "paths": {
            f"/{endpoint}/requests/{{request_id}}/status": {"get": {"responses": {"200": queue}}},
            f"/{endpoint}/requests/{{request_id}}/cancel": {"put": {"responses": {"200": queue}}},
            f"/{endpoint}": {"post": {"requestBody": {"required": True, **body}, "responses": {"200": queue}}},
            f"/{endpoint}/requests/{{request_id}}": {"get": {"responses": {"200": result}}},
        },
        "servers": [{"url": "https://queue.fal.run"}],
    }


def text(description: str = "", **more: Any) -> Json:
    return {"type": "string", **({"description": description} if description else {}), **more}


def words(values: list[str], default: str | None = None, **more: Any) -> Json:
    return {"type": "string", "enum": values, **({} if default is None else {"default": default}), **more}


def maybe(schema: Json, **more: Any) -> Json:
    return {"anyOf": [schema, {"type": "null"}], **more}


def whole(low: int, high: int, default: int, **more: Any) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default, **more}


def number(low: float, high: float, default: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high, "default": default}


def flag(default: bool, description: str = "") -> Json:
    return {"type": "boolean", "default": default, **({"description": description} if description else {})}


def urls(description: str, **more: Any) -> Json:
    return {"type": "array", "items": {"type": "string"}, "description": description, **more}


PROMPT = text("What to do.")
SEED = maybe({"type": "integer"}, description="The same seed gives the same picture.")
COUNT = whole(1, 4, 1, description="How many pictures.")
SYNC = flag(False, "Answer with data URIs.")
SIZE = {"anyOf": [{"$ref": "#/components/schemas/ImageSize"}, words(PRESETS)]}

QWEN_2509 = document(
    "fal-ai/qwen-image-edit-2509",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_urls": urls(
            "The pictures to edit.", examples=[["https://e/1.png", "https://e/2.png", "https://e/3.png"]]
        ),
        "image_size": {**SIZE, "default": "square_hd"},
        "num_inference_steps": whole(2, 100, 50),
        "seed": SEED,
        "guidance_scale": number(0, 20, 4),
        "sync_mode": SYNC,
        "num_images": COUNT,
        "enable_safety_checker": flag(True),
        "output_format": words(["jpeg", "png"], "png"),
        "negative_prompt": text(default=" "),
        "acceleration": words(["none", "regular"], "regular"),
    },
    ["prompt", "image_urls"],
)
QWEN_2511 = document(  # sizes may be null, exclusive bounds as 3.1 writes them, loras
    "fal-ai/qwen-image-edit-2511/lora",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_urls": urls("The pictures."),
        "image_size": {"anyOf": [*SIZE["anyOf"], {"type": "null"}], "description": "Absent: as the input."},
        "num_inference_steps": whole(1, 50, 28),
        "guidance_scale": {"type": "number", "exclusiveMinimum": 0.5, "maximum": 20, "default": 4.5},
        "loras": {"type": "array", "items": {"$ref": "#/components/schemas/LoraWeight"}, "default": [], "maxItems": 3},
        "num_images": COUNT,
        "output_format": words(["jpeg", "png", "webp"], "png"),
        "acceleration": words(["none", "regular", "high"], "regular"),
        "seed": SEED,
        "sync_mode": SYNC,
    },
    ["prompt", "image_urls"],
)
INPAINT = document(  # one picture, a mask that is required, a number of an open interval
    "fal-ai/qwen-image-edit/inpaint",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_url": text(
            "The picture.", **{"x-fal-file-input": {"kind": "image"}, "x-fal": {"max_height": 14142, "timeout": 20}}
        ),
        "mask_url": text("White is painted anew."),
        "strength": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "default": 0.93},
        "image_size": {"anyOf": [*SIZE["anyOf"], {"type": "null"}]},
        "num_images": COUNT,
        "seed": SEED,
        "output_format": words(["jpeg", "png"], "png"),
    },
    ["prompt", "image_url", "mask_url"],
)
BANANA_PRO = document(  # aspect_ratio and resolution, words that are numbers, long prompts
    "fal-ai/nano-banana-pro/edit",
    "image-to-image",
    {
        "prompt": text(minLength=3, maxLength=50000),
        "num_images": COUNT,
        "seed": SEED,
        "aspect_ratio": maybe(words(["auto", *RATIOS]), default="auto"),
        "output_format": words(["jpeg", "png", "webp"], "png"),
        "safety_tolerance": words(["1", "2", "3", "4", "5", "6"], "4"),
        "sync_mode": SYNC,
        "system_prompt": text(default=""),
        "image_urls": urls("The pictures.", maxItems=14),
        "resolution": words(["1K", "2K", "4K"], "1K"),
        "limit_generations": flag(False),
        "enable_web_search": flag(False),
    },
    ["prompt", "image_urls"],
)
GROK = document(  # resolution in small letters, the provider's own default shape
    "xai/grok-imagine-image/edit",
    "image-to-image",
    {
        "prompt": text(maxLength=8000),
        "image_urls": urls("Up to three pictures.", maxItems=3),
        "aspect_ratio": words(["1:1", "16:9", "9:16", "2:1"], "1:1"),
        "resolution": words(["1k", "2k"], "1k"),
        "num_images": COUNT,
        "output_format": words(["jpeg", "png", "webp"], "jpeg"),
        "sync_mode": SYNC,
    },
    ["prompt", "image_urls"],
)
KONTEXT = document(  # one picture, shapes or nothing, jpeg by default
    "fal-ai/flux-pro/kontext",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_url": text("The picture."),
        "seed": SEED,
        "guidance_scale": number(1, 20, 3.5),
        "sync_mode": SYNC,
        "num_images": COUNT,
        "output_format": words(["jpeg", "png"], "jpeg"),
        "safety_tolerance": words(["1", "2", "3", "4", "5", "6"], "2"),
        "enhance_prompt": flag(False),
        "aspect_ratio": maybe(words(["21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"])),
    },
    ["prompt", "image_url"],
)
KONTEXT_DEV = document(  # resolution_mode
    "fal-ai/flux-kontext/dev",
    "image-to-image",
    {
        "image_url": text("The picture."),
        "prompt": PROMPT,
        "resolution_mode": words(["auto", "match_input", "1:1", "16:9", "9:16"], "match_input"),
        "num_inference_steps": whole(10, 50, 28),
        "guidance_scale": number(1, 20, 2.5),
        "num_images": COUNT,
        "seed": SEED,
        "output_format": words(["jpeg", "png"], "jpeg"),
        "acceleration": words(["none", "regular", "high"], "none"),
    },
    ["image_url", "prompt"],
)
FLUX_2 = document(  # bounds of sides that are meant
    "fal-ai/flux-2/edit",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_urls": urls("Only the first 4 are used."),
        "image_size": {"anyOf": [*SIZE["anyOf"], {"type": "null"}]},
        "num_images": COUNT,
        "seed": SEED,
        "output_format": words(["jpeg", "png", "webp"], "png"),
        "guidance_scale": number(0, 20, 2.5),
        "num_inference_steps": whole(4, 50, 28),
        "enable_prompt_expansion": flag(False),
        "acceleration": words(["none", "regular", "high"], "regular"),
    },
    ["prompt", "image_urls"],
    minimum=512,
    maximum=2048,
)
FLUX_2_PRO = document(  # no count, `auto` among the presets
    "fal-ai/flux-2-pro/edit",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_size": {
            "anyOf": [{"$ref": "#/components/schemas/ImageSize"}, words(["auto", *PRESETS])],
            "default": "auto",
        },
        "seed": SEED,
        "safety_tolerance": words(["1", "2", "3", "4", "5"], "2"),
        "enable_safety_checker": flag(True),
        "output_format": words(["jpeg", "png"], "jpeg"),
        "image_urls": urls("The pictures."),
    },
    ["prompt", "image_urls"],
)
SEEDREAM = document(  # a default size as an object, more words for sizes, max_images, no format
    "fal-ai/bytedance/seedream/v4/edit",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_size": {
            "anyOf": [{"$ref": "#/components/schemas/ImageSize"}, words([*PRESETS, "auto", "auto_2K", "auto_4K"])],
            "default": {"width": 2048, "height": 2048},
            "description": "The size. Width and height must be between 1024 and 4096.",
        },
        "num_images": whole(1, 6, 1),
        "max_images": whole(1, 6, 1),
        "seed": SEED,
        "sync_mode": SYNC,
        "enable_safety_checker": flag(True),
        "enhance_prompt_mode": words(["standard", "fast"], "standard"),
        "image_urls": urls("The last 10 are kept."),
    },
    ["prompt", "image_urls"],
)
GPT_IMAGE = document(  # listed sizes, OpenAI's own knobs, a mask that may be left out, no seed
    "fal-ai/gpt-image-1.5/edit",
    "image-to-image",
    {
        "prompt": PROMPT,
        "image_urls": urls("The pictures."),
        "image_size": words(["auto", "1024x1024", "1536x1024", "1024x1536"], "auto"),
        "background": words(["auto", "transparent", "opaque"], "auto"),
        "quality": words(["low", "medium", "high"], "high"),
        "input_fidelity": words(["low", "high"], "high"),
        "num_images": COUNT,
        "output_format": words(["jpeg", "png", "webp"], "png"),
        "sync_mode": SYNC,
        "mask_image_url": maybe({"type": "string"}, description="The mask."),
    },
    ["prompt", "image_urls"],
)
FLUX_DEV = document(  # no picture at all
    "fal-ai/flux/dev",
    "text-to-image",
    {
        "prompt": PROMPT,
        "image_size": {**SIZE, "default": "landscape_4_3"},
        "num_inference_steps": whole(1, 50, 28),
        "seed": SEED,
        "guidance_scale": number(1, 20, 3.5),
        "sync_mode": SYNC,
        "num_images": COUNT,
        "enable_safety_checker": flag(True),
        "output_format": words(["jpeg", "png"], "jpeg"),
        "acceleration": words(["none", "regular", "high"], "none"),
    },
    ["prompt"],
)
STRANGE = document(  # what nobody has seen before: every word of it is for review
    "someone/strange-model",
    "image-to-image",
    {
        "prompt": text('Two\nlines: and a # sign, "quotes" and \u0007a bell.'),
        "image_urls": urls("The pictures."),
        "size": words(["small", "large"], "small"),
        "resolution": words(["720p", "1080p"], "720p"),
        "wobble": {"type": "number", "minimum": -0.5, "maximum": 0.5, "default": 0.0000001},
        "count": {"type": "integer", "enum": [1, 2, 4], "default": 1},
        "true": flag(True, "A name that YAML reads otherwise."),
        "reference_image_url": text("Another picture.", **{"x-fal-file-input": {"kind": "image"}}),
        "webhook_url": text("Where to call."),
        "control": {"type": "object", "properties": {"a": {"type": "string"}}},
        "anything": {},
        "output_format": words(["jpg", "png"], "jpg"),
    },
    ["prompt", "image_urls", "wobble"],
)

TWO_SIDES = document(  # invented: a size of two fields, as many servers of Stable Diffusion have it
    "someone/two-sides",
    "text-to-image",
    {
        "prompt": text("What to paint."),
        "width": {"type": "integer", "minimum": 256, "maximum": 1536, "default": 1024},
        "height": {"type": "integer", "minimum": 256, "maximum": 1536, "default": 768},
        "seed": {"type": "integer"},
    },
    ["prompt"],
)

REFERENCES = document(  # invented: the picture is one field, pictures of a style are another
    "someone/with-references",
    "image-to-image",
    {
        "prompt": text("What to do."),
        "image_url": text("The picture."),
        "mask_url": text("The black pixels will be edited."),
        "image_urls": {"type": "array", "items": {"type": "string"}, "description": "Pictures whose style is taken."},
    },
    ["prompt", "image_url"],
)

DOCUMENTS: dict[str, Json] = {
    one["info"]["x-fal-metadata"]["endpointId"]: one
    for one in (
        QWEN_2509,
        QWEN_2511,
        INPAINT,
        BANANA_PRO,
        GROK,
        KONTEXT,
        KONTEXT_DEV,
        FLUX_2,
        FLUX_2_PRO,
        SEEDREAM,
        GPT_IMAGE,
        FLUX_DEV,
        STRANGE,
        TWO_SIDES,
        REFERENCES,
    )
}
