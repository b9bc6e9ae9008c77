"""Request bodies for pictures with the ranges that the service checks."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class ImageRequest(BaseModel):
    """Generations, edits and variations; the last has no prompt."""

    model: str
    prompt: str
    n: int = Field(default=1, ge=1, le=4)
    size: str = Field(default="1024x1024", pattern=r"^\d{1,5}x\d{1,5}$")
    response_format: Literal["b64_json"] | None = "b64_json"
    quality: str | None = None
    style: str | None = None
    user: str | None = None
    # guess: providers' options are sent as extra form fields; whether they have an effect is not known.
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    num_inference_steps: int | None = Field(default=None, ge=1, le=512)


class VariationRequest(ImageRequest):
    prompt: str = ""


class NativeImageRequest(BaseModel):
    prompt: str
    negative_prompt: str | None = None
    num_images: int = Field(default=1, ge=1, le=4)
    num_inference_steps: int | None = Field(default=None, ge=1, le=512)
    guidance_scale: float | None = Field(default=None, ge=0, le=20)
    strength: float | None = Field(default=None, ge=0, le=1)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    aspect_ratio: str | None = None
    image: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    webhook: str | None = None
