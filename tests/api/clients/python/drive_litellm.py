"""Drives the gateway with litellm as a client: drive_litellm.py BASE_URL PHOTO. Prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it would fetch its prices
import litellm

base_url, photo = sys.argv[1], Path(sys.argv[2])
litellm.suppress_debug_info = True
results: dict[str, Any] = {}


def edit(**more: Any) -> Any:
    with photo.open("rb") as image:
        return litellm.image_edit(
            model="openai/qwen-image-edit-2509", image=image, prompt="sepia", api_base=base_url, api_key="any", **more
        )


answer = edit(size="256x256")
results["url"] = [sorted(key for key, value in dict(one).items() if value) for one in answer.data]
answer = edit(size="256x256", response_format="b64_json", n=2)
results["b64"] = [sorted(key for key, value in dict(one).items() if value) for one in answer.data]
try:
    edit(size="bogus")
except litellm.exceptions.BadRequestError as error:
    results["error"] = {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "text": str(error),
    }
sys.stdout.write(json.dumps(results) + "\n")
