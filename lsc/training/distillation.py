"""Distillation: a finished run as the teacher of another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lsc.errors import UserError
from lsc.objectives import LayerObjective, Objective
from lsc.training.options import TeacherOptions
from lsc.training.task import Task, Teaching


class Distillation(Teaching):
    """A teacher's term in the loss. The teacher is frozen and none of its weights are saved with the student.

    ``embeddings``: one minus the cosine between the student's and the teacher's embeddings, which live in one space.
    ``logits``: the Kullback-Leibler divergence between softened class probabilities, times the squared temperature
    (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015).
    """

    def __init__(self, teacher: Task, options: TeacherOptions):
        super().__init__()
        # In a list, so that the teacher is no submodule: neither trained, nor saved, nor wrapped for several processes.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self.options = options
        self.labels_weight = options.labels_weight

    @property
    def teacher(self) -> Task:
        return self._teacher[0]

    def loss(self, images: Tensor, embeddings: Tensor, objective: Objective) -> Tensor:
        """The teacher's term for a batch: images (B, C, H, W), the student's embeddings (B, dim) -> scalar."""
        if self.options.targets == "class_means":
            return embeddings.new_zeros(())
        if next(self.teacher.parameters()).device != images.device:
            self.teacher.to(images.device)
        with torch.no_grad():
            targets = self.teacher.encoder(images).float()
        if self.options.targets == "embeddings":
            return self.options.weight * (1 - F.cosine_similarity(embeddings, targets)).mean()
        if not isinstance(objective, LayerObjective) or not isinstance(self.teacher.objective, LayerObjective):
            raise UserError("teacher.targets 'logits' needs cross_entropy as the objective of both teacher and student")
        temperature = self.options.temperature
        student = F.log_softmax(objective.logits(embeddings) / temperature, dim=1)
        soft = F.log_softmax(self.teacher.objective.logits(targets) / temperature, dim=1)
        divergence = F.kl_div(student, soft, reduction="batchmean", log_target=True)
        return self.options.weight * temperature**2 * divergence
